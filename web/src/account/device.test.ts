import { expect, test } from 'vitest';
import { deviceText } from './device.ts';

test('a browser is told by its name and its system, all else as it calls itself', () => {
  const webkit = 'AppleWebKit/537.36 (KHTML, like Gecko)';
  expect(deviceText(`Mozilla/5.0 (X11; Linux x86_64) ${webkit} HeadlessChrome/156.0.0.0 Safari/537.36`)).toBe('Chrome, Linux');
  expect(deviceText(`Mozilla/5.0 (Windows NT 10.0; Win64; x64) ${webkit} Chrome/150.0.0.0 Safari/537.36 Edg/150.0`)).toBe('Edge, Windows');
  expect(deviceText(`Mozilla/5.0 (Linux; Android 14) ${webkit} Chrome/150.0.0.0 Mobile Safari/537.36`)).toBe('Chrome, Android');
  expect(deviceText('Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) Version/17.5 Mobile Safari/604.1')).toBe('Safari, iOS');
  expect(deviceText('curl/8.14')).toBe('curl/8.14');
});
