// Pictures of the waiting page for whoever changes how it looks: node pictures.mjs [directory]. Run `npm run page` first.
import { mkdirSync } from 'node:fs';
import path from 'node:path';

import { launch } from './chromium.mjs';
import { startStub } from './stub.mjs';
import { until } from './until.mjs';

const OUT = process.argv[2] ?? '../../target/screenshots';
const VIEWS = { phone: { width: 390, height: 844 }, desk: { width: 1280, height: 800 } };
const SCENES = {
  async waiting(page) { await page.locator('#chime').click(); },
  async offline(page) {
    await page.context().setOffline(true);
    await page.locator('.offline').waitFor();
  },
  async called(page, stub) {
    await page.evaluate(() => Object.defineProperty(document, 'hidden', { get: () => true }));
    stub.visitor.state = 'called';
    await until('the call', () => stub.seen.enters === 1);
  },
};

mkdirSync(OUT, { recursive: true });
const browser = await launch();
for (const [view, viewport] of Object.entries(VIEWS)) {
  for (const colorScheme of ['light', 'dark']) {
    for (const [scene, arrange] of Object.entries(SCENES)) {
      const stub = await startStub();
      const locale = colorScheme === 'dark' && view === 'phone' ? 'ko-KR' : 'en-US';
      const context = await browser.newContext({ viewport, colorScheme, locale, reducedMotion: 'reduce' });
      const page = await context.newPage();
      await page.goto(`${stub.url}/tickets?seat=7`);
      stub.visitor.ahead = 433;
      await until('a place further on', async () => (await page.locator('#position').textContent()) === '434');
      await arrange(page, stub);
      await page.screenshot({ path: path.join(OUT, `${scene}-${view}-${colorScheme}.png`), fullPage: true });
      await context.close();
      stub.close();
    }
  }
}
await browser.close();
