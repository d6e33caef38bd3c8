// A visitor's whole way in a real browser: pays for a place, waits, loses the network for a while, closes the tab, comes
// back to the same place, is called while looking elsewhere, and lands on the page that was asked for.
//
//   BASE_URL      the gateway, as in http://127.0.0.1:8080
//   PATH_GUARDED  the page to ask for, with its query
//   ORIGIN_TEXT   what the guarded page says
//   HOLDERS       a JSON list of cookie headers: of who is inside, and of who waits before the visitor
//   MODE          js (default) or nojs, which leaves out what needs a script
import assert from 'node:assert/strict';

import { launch } from './chromium.mjs';
import { until } from './until.mjs';

const DEADLINE_MS = 60_000;
const { BASE_URL, PATH_GUARDED, ORIGIN_TEXT, MODE = 'js' } = process.env;
const [inside, waiting] = JSON.parse(process.env.HOLDERS);
const url = new URL(PATH_GUARDED, BASE_URL).href;
const script = MODE === 'js';

const browser = await launch();
try {
  await journey(await browser.newContext({ javaScriptEnabled: script, locale: 'en-US' }));
  console.log(`ok: ${MODE}`);
} catch (fault) {
  console.error(`FAILED: ${MODE}: ${fault.message}`);
  process.exitCode = 1;
} finally {
  await browser.close();
}

async function journey(context) {
  const complaints = [];
  context.on('weberror', error => complaints.push(error.error().message));
  context.on('console', message => { if (/Content Security Policy/i.test(message.text())) complaints.push(message.text()); });
  const hides = () => Object.defineProperty(document, 'hidden', { get: () => window.tabIsHidden === true });
  await context.addInitScript(hides);

  let page = await context.newPage();
  const first = await page.goto(url);
  assert.match(await first.text(), /data-challenge="[\w-]{68}"/, 'a newcomer meets the price of a place');
  await at(page, 2);
  if (script) {
    await context.setOffline(true);
    await page.locator('.offline').waitFor();
    assert.equal(await place(page), 2, 'the place stays on the screen');
    await context.setOffline(false);
    await page.locator('.offline').waitFor({ state: 'hidden', timeout: DEADLINE_MS });
  }
  await page.close();

  page = await context.newPage();
  const again = await page.goto(url);
  assert.doesNotMatch(await again.text(), /data-challenge/, 'who has a place does not pay again');
  await at(page, 2);
  await leave(waiting);
  await at(page, 1);

  if (script) await page.evaluate(() => { window.tabIsHidden = true; });
  await leave(inside);
  if (script) {
    await until('the call', async () => (await page.title()) === 'It is your turn', DEADLINE_MS);
    await page.evaluate(() => { window.tabIsHidden = false; document.dispatchEvent(new Event('visibilitychange')); });
  }
  await page.getByText(ORIGIN_TEXT).waitFor({ timeout: DEADLINE_MS });
  assert.equal(page.url(), url, 'the visitor lands on the page that was asked for, with its query');
  const reloaded = await page.reload();
  assert.ok((await reloaded.text()).includes(ORIGIN_TEXT), 'a reload shows the page at once');
  assert.deepEqual(complaints, [], 'nothing of the pages is refused or fails');
}

function at(page, position) {
  return until(`place ${position}`, async () => (await place(page)) === position, DEADLINE_MS);
}

/** The place on the screen; nothing while the page is being exchanged for another, or is none of the queue. */
async function place(page) {
  try {
    const shown = page.locator('main[data-state=waiting] #position');
    return await shown.count() ? Number((await shown.textContent({ timeout: 1000 })).replace(/\D/g, '')) : null;
  } catch { return null; }
}

async function leave(cookie) {
  const answer = await fetch(new URL('/queue/leave?room=hall', BASE_URL), { method: 'POST', headers: { cookie } });
  assert.equal(answer.status, 204);
}
