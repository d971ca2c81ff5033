import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import type { Page } from 'playwright-core';
import { expect } from 'vitest';
import { url } from './pages.ts';

const script = createRequire(import.meta.url).resolve('axe-core/axe.min.js');
const SIZES = { desktop: { width: 1280, height: 800 }, phone: { width: 390, height: 844 } };
/** The second one is the first of `SIZES` at a zoom of 200 %. */
const NARROW = [{ width: 360, height: 640 }, { width: 640, height: 400 }];

/** What is looked at: a name, its address, and a text that is there once it is whole. */
export type Looked = readonly [name: string, path: string, shown: string];

/**
 * axe has nothing against these pages, in both themes, wide and narrow, and they are not scrolled sideways. With SCREENSHOTS,
 * keeps a picture of each.
 */
export async function findNothing(page: Page, pages: readonly Looked[]): Promise<void> {
  for (const [name, path, shown] of pages) {
    await page.goto(url + path);
    await page.getByRole('heading').first().waitFor();
    await inAllLooks(page, name, async (look) => {
      await page.getByText(shown).filter({ visible: true }).first().waitFor();
      await lookAt(page, name, look);
    });
  }
}

/** The same of the page as it is now. */
export async function findNothingHere(page: Page, name: string): Promise<void> {
  await inAllLooks(page, name, (look) => lookAt(page, name, look));
}

async function inAllLooks(page: Page, name: string, act: (look: string) => Promise<void>): Promise<void> {
  for (const colorScheme of ['light', 'dark'] as const) {
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
    for (const [size, viewport] of Object.entries(SIZES)) {
      await page.setViewportSize(viewport);
      await act(`${size}-${colorScheme}`);
    }
  }
  for (const viewport of NARROW) {
    await page.setViewportSize(viewport);
    expect(await tooWide(page), `${name}, ${viewport.width} px wide`).toEqual([]);
  }
  await page.setViewportSize(SIZES.desktop);
}

/** What is scrolled sideways, or would have to be, though it is none of the tables and bars that are meant to be. */
async function tooWide(page: Page): Promise<string[]> {
  return page.evaluate(() => {
    const meant = /_(board|filters|parts|scrolled|preview|tablePlace)_/;
    const all = [document.documentElement, ...document.querySelectorAll<HTMLElement>('main, main *, [role=dialog], [role=dialog] *')];
    const isWhole = (element: HTMLElement) => element.matches('html, main') || ['auto', 'scroll'].includes(getComputedStyle(element).overflowX);
    const wide = all.filter((element) => element.scrollWidth > element.clientWidth + 1 && isWhole(element) && !meant.test(element.className));
    return wide.map((element) => `${element.localName}.${element.className}: ${element.scrollWidth} of ${element.clientWidth} px`);
  });
}

async function lookAt(page: Page, name: string, look: string): Promise<void> {
  const folder = process.env.SCREENSHOTS;
  if (folder) await page.screenshot({ path: `${folder}/${name}-${look}.png` });
  expect(await findings(page), `${name}, ${look}`).toEqual([]);
}

/** What axe has against the page, a line each. It is run as a debugger does, past the page's policy. */
async function findings(page: Page): Promise<string[]> {
  if (!(await page.evaluate('"axe" in globalThis'))) await page.evaluate(await readFile(script, 'utf8'));
  const violations = await page.evaluate(async () => {
    const { axe } = globalThis as unknown as { axe: typeof import('axe-core') };
    return (await axe.run()).violations;
  });
  return violations.flatMap(({ id, nodes }) => nodes.map(({ target, failureSummary }) => `${id}: ${target.join(' ')}: ${failureSummary}`));
}
