import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import react from '@vitejs/plugin-react';
import { defineConfig, type Plugin } from 'vite';

// `npm run dev` asks a server that runs on its own port.
const server = process.env.PRIMETRADE_URL ?? 'http://127.0.0.1:8080';

/** The service worker, which keeps all files of this version. Their names have their hashes. */
function serviceWorker(): Plugin {
  return {
    name: 'service-worker',
    apply: 'build',
    enforce: 'post',
    generateBundle: {
      order: 'post',
      handler(_, bundle) {
        const files = ['/', ...Object.keys(bundle).filter((file) => file.startsWith('assets/')).sort().map((file) => `/${file}`)];
        const source = readFileSync('src/offline/sw.js', 'utf8').replace("['FILES']", JSON.stringify(files));
        const page = bundle['index.html'];
        const whole = source + (page?.type === 'asset' ? String(page.source) : '');
        const version = createHash('sha256').update(whole).digest('hex').slice(0, 12);
        this.emitFile({ type: 'asset', fileName: 'sw.js', source: source.replace('primetrade-VERSION', `primetrade-${version}`) });
      },
    },
  };
}

export default defineConfig({
  plugins: [react(), serviceWorker()],
  build: {
    // a data: URL would be another source than 'self'
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rolldownOptions: {
      // With the first load, which uses most of it: what is left is each view's own.
      output: { codeSplitting: { groups: [{ name: 'shared', test: /node_modules\/(@tanstack|lucide-react|@floating-ui)\// }] } },
    },
  },
  server: { proxy: { '/api': server } },
  test: { include: ['src/**/*.test.ts'] },
} as Parameters<typeof defineConfig>[0]);
