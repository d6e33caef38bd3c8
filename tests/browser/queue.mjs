// A visitor in a real browser: opens a guarded page of a full room, waits in the queue, is let in, and comes back.
//
//   BASE_URL      the gateway, as in http://127.0.0.1:8080
//   PATH_GUARDED  the page to ask for, with its query if it has one (default /)
//   ORIGIN_TEXT   what the guarded page says
//   MODE          js (default) or nojs
//   OUT           a directory for screenshots of the waiting page; none are taken without it
//   DEADLINE_MS   how long being let in may take (default 120000)
//   INSECURE      set to accept a certificate that nobody has signed
//
// The room must be full when the test starts, and must let the visitor move up at least once before it is their turn.
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import path from 'node:path';

import { launch } from './chromium.mjs';
import { until } from './until.mjs';

const VIEWS = { phone: { width: 390, height: 844 }, desk: { width: 1280, height: 800 } };

const settings = read(process.env);
const browser = await launch();
try {
  const positions = await visit(browser, settings);
  console.log(`ok: ${settings.mode}: waited at ${positions.join(', ')}, was let in, and came back at once`);
} catch (fault) {
  console.error(`FAILED: ${settings.mode}: ${fault.message}`);
  process.exitCode = 1;
} finally {
  await browser.close();
}

function read(env) {
  const mode = env.MODE ?? 'js';
  for (const name of ['BASE_URL', 'ORIGIN_TEXT']) if (!env[name]) fail(`${name} is not set`);
  if (!['js', 'nojs'].includes(mode)) fail(`MODE is ${mode}; it must be js or nojs`);
  const url = new URL(env.PATH_GUARDED ?? '/', env.BASE_URL).href;
  const deadlineMs = Number(env.DEADLINE_MS ?? 120_000);
  return { mode, url, originText: env.ORIGIN_TEXT, out: env.OUT, deadlineMs, insecure: Boolean(env.INSECURE) };
}

function fail(message) {
  console.error(message);
  process.exit(2);
}

async function visit(browser, { mode, url, originText, out, deadlineMs, insecure }) {
  const context = await browser.newContext({
    viewport: VIEWS.desk, javaScriptEnabled: mode === 'js', ignoreHTTPSErrors: insecure, locale: 'en-US',
  });
  const page = await context.newPage();
  const complaints = [];
  page.on('pageerror', error => complaints.push(error.message));
  page.on('console', message => { if (/Content Security Policy/i.test(message.text())) complaints.push(message.text()); });
  let loads = 0;
  page.on('domcontentloaded', () => { loads += 1; });

  const first = await page.goto(url);
  checkHeaders(first);
  const positions = [];
  await until('a waiting page that shows a place', async () => note(await look(page), positions));
  if (out) await photograph(page, out, mode);
  await until('a better place than the first', async () => {
    note(await look(page), positions);
    return positions.length > 1;
  }, deadlineMs);
  if (mode === 'js') assert.equal(loads, 1, 'with JavaScript the place is updated without loading the page again');
  else assert.ok(loads > 1, 'without JavaScript the page loads itself again');

  await until(`being let in to a page that says "${originText}"`, async () => {
    const seen = await look(page);
    note(seen, positions);
    return seen?.text.includes(originText);
  }, deadlineMs);
  assert.equal(page.url(), url, 'the visitor lands on the page that was asked for');

  const again = await page.reload();
  assert.ok((await again.text()).includes(originText), 'a reload shows the page at once, without the queue');
  assert.equal((await look(page)).position, null);
  assert.deepEqual(complaints, [], 'nothing of the page is refused or fails');
  await context.close();
  return positions;
}

function checkHeaders(response) {
  const headers = response.headers();
  assert.match(headers['content-type'] ?? '', /^text\/html/, 'a browser gets a page');
  assert.match(headers['content-security-policy'] ?? '', /default-src 'none'.*frame-ancestors 'none'/);
  assert.match(headers['cache-control'] ?? '', /no-store/, 'no cache keeps the page');
}

/** What stands on the screen now; nothing while the page is being exchanged for another. */
async function look(page) {
  try {
    return await page.evaluate(() => {
      const waiting = document.querySelector('main[data-state=waiting] #position');
      const position = waiting && Number(waiting.textContent.replace(/\D/g, ''));
      return { position, text: document.body.innerText };
    });
  } catch (fault) {
    if (/context was destroyed|navigat|closed|null/i.test(fault.message) && !page.isClosed()) return null;
    throw fault;
  }
}

/** Keeps the place if it is another than the last, and sees to it that it never grows. */
function note(seen, positions) {
  if (!seen?.position) return false;
  const last = positions.at(-1);
  assert.ok(last === undefined || seen.position <= last, `the place shown grew from ${last} to ${seen.position}`);
  if (seen.position !== last) positions.push(seen.position);
  return true;
}

async function photograph(page, out, mode) {
  mkdirSync(out, { recursive: true });
  for (const [name, size] of Object.entries(VIEWS).reverse()) {
    await page.setViewportSize(size);
    await page.screenshot({ path: path.join(out, `waiting-${mode}-${name}.png`) });
  }
}
