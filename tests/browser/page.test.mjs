// The waiting page by itself, in a real browser, before a stub that can be put into any situation.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';

import { launch } from './chromium.mjs';
import { ORIGIN_TEXT, startStub } from './stub.mjs';
import { until } from './until.mjs';

const FIRST_FLIGHT_BYTES = 14_000;

let browser;
before(async () => { browser = await launch(); });
after(() => browser.close());

/** A test with a stub and a page of its own; anything the page complains of is a failure. */
function scene(name, options, run) {
  test(name, { timeout: 60_000 }, async () => {
    const stub = await startStub({ name: options.page });
    Object.assign(stub.visitor, options.visitor);
    const context = await browser.newContext({
      viewport: { width: 390, height: 844 }, locale: 'en-US', timezoneId: 'Asia/Seoul', ...options.context,
    });
    const page = await context.newPage();
    const complaints = [];
    page.on('pageerror', error => complaints.push(error.message));
    page.on('console', message => {
      if (message.type() === 'error' && !/Failed to load resource/.test(message.text())) complaints.push(message.text());
    });
    try {
      await options.prepare?.(page);
      await page.goto(`${stub.url}/tickets?seat=7`);
      await run(page, stub);
      assert.deepEqual(complaints, []);
    } finally {
      await context.close();
      stub.close();
    }
  });
}

const text = (page, id) => page.locator(`#${id}`).textContent();
const shows = (page, id, words) => until(`#${id} shows "${words}"`, async () => (await text(page, id)) === words);
const polled = (stub, times) => {
  const goal = stub.seen.polls + times;
  return until(`${times} more polls`, () => stub.seen.polls >= goal, 30_000);
};

// The scenes spend their time waiting for a poll, so several can do so at once.
describe('the waiting page', { concurrency: 4 }, () => {
  test('the page fits into the first flight of a connection', () => {
    for (const language of ['en', 'ko']) {
      const page = readFileSync(new URL(`.page/builtin.${language}.html`, import.meta.url));
      const seen = page.indexOf('<script>');
      assert.ok(seen < FIRST_FLIGHT_BYTES, `${seen} bytes before the script`);
      const packed = gzipSync(page).length;
      assert.ok(packed < FIRST_FLIGHT_BYTES / 2, `${packed} bytes compressed`);
    }
  });

  scene('the place, the title and the bar follow the queue without a reload', {}, async (page, stub) => {
    assert.equal(await page.title(), 'No. 1,234 in line');
    Object.assign(stub.visitor, { ahead: 308, behind: 7000, eta: 301 });
    await shows(page, 'position', '309');
    assert.equal(await page.title(), 'No. 309 in line');
    assert.equal(await text(page, 'ahead'), '308');
    assert.equal(await text(page, 'behind'), '7,000');
    assert.equal(await text(page, 'wait'), 'about 6 minutes');
    const bar = page.getByRole('progressbar');
    assert.equal((await bar.evaluate(element => element.value)).toFixed(0), '75');
    assert.match(await text(page, 'heard'), /^\d+:\d\d:\d\d\s[AP]M$/);
    assert.equal(stub.seen.pages, 1);
  });

  scene('a gateway that lags behind does not make the place grow', {}, async (page, stub) => {
    stub.visitor.ahead = 1000;
    await shows(page, 'position', '1,001');
    stub.visitor.ahead = 1010;
    await polled(stub, 2);
    assert.equal(await text(page, 'position'), '1,001');
  });

  scene('the bar knows where the visitor began, in a new tab too, and begins anew with a new place', {}, async (page, stub) => {
    const value = tab => tab.locator('#progress').evaluate(element => Math.round(element.value));
    stub.visitor.ahead = 616;
    await until('half of the way', async () => (await value(page)) === 50);
    const tab = await page.context().newPage();
    await tab.goto(page.url());
    assert.equal(await value(tab), 50);
    Object.assign(stub.visitor, { joinedAt: '2026-12-01T12:00:00Z', ahead: 99 });
    await tab.reload();
    assert.equal(await value(tab), 0);
  });

  scene('a network that is gone is said to be, the place stays, and the page goes on by itself', {}, async (page, stub) => {
    await polled(stub, 1);
    await page.context().setOffline(true);
    await shows(page, 'announcer', 'You are offline. Your place is kept for 5 minutes, and this page goes on by itself once you are back.');
    assert.equal(await page.locator('.offline').isVisible(), true);
    assert.equal(await page.locator('.lost').isVisible(), false);
    assert.equal(await text(page, 'position'), '1,234');
    stub.visitor.ahead = 41;
    await page.context().setOffline(false);
    await shows(page, 'position', '42');
    await shows(page, 'announcer', 'Connected again.');
    assert.equal(await page.locator('.offline').isVisible(), false);
    assert.equal(stub.seen.pages, 1);
  });

  scene('a sound calls whoever asked for it, and nobody else', {
    prepare: page => page.addInitScript(() => {
      window.tones = 0;
      const start = OscillatorNode.prototype.start;
      OscillatorNode.prototype.start = function (...when) { window.tones += 1; return start.apply(this, when); };
    }),
  }, async (page, stub) => {
    const chime = page.getByRole('button');
    assert.equal(await page.evaluate(() => window.tones), 0);
    await page.keyboard.press('Tab');
    assert.equal(await chime.evaluate(button => button === document.activeElement), true, 'the first stop of the keyboard');
    await page.keyboard.press('Space');
    assert.equal(await chime.getAttribute('aria-pressed'), 'true');
    assert.equal(await page.evaluate(() => window.tones), 3, 'it is heard once when it is asked for');
    await page.keyboard.press('Space');
    assert.equal(await chime.getAttribute('aria-pressed'), 'false');
    await page.keyboard.press('Space');
    await page.keyboard.press('Tab');
    assert.equal(await chime.evaluate(button => button === document.activeElement), false, 'and no trap');
    stub.visitor.state = 'called';
    await until('the sound', () => page.evaluate(() => window.tones).then(tones => tones === 9, () => true));
    await page.getByText(ORIGIN_TEXT).waitFor();
  });

  scene('who looks elsewhere when called keeps the slot and a title that says so, and goes in when they look', {
    prepare: page => page.addInitScript(() => {
      Object.defineProperty(document, 'hidden', { get: () => window.tabIsHidden === true });
    }),
  }, async (page, stub) => {
    await page.evaluate(() => { window.tabIsHidden = true; });
    stub.visitor.state = 'called';
    await until('the slot is taken', () => stub.seen.enters === 1);
    assert.equal(await page.title(), 'It is your turn');
    await page.evaluate(() => { window.tabIsHidden = false; document.dispatchEvent(new Event('visibilitychange')); });
    await page.getByText(ORIGIN_TEXT).waitFor();
    assert.equal(page.url(), `${stub.url}/tickets?seat=7`);
  });

  for (const state of ['called', 'inside']) {
    scene(`a visitor who is ${state} gets the page that was asked for`, {}, async (page, stub) => {
      stub.visitor.state = state;
      await page.getByText(ORIGIN_TEXT).waitFor();
      assert.equal(page.url(), `${stub.url}/tickets?seat=7`);
      assert.equal(stub.seen.entered, 1);
    });
  }

  for (const fault of ['drop', 503, 429, 'nonsense']) {
    scene(`the place stays on the screen when the queue answers with ${fault}`, {}, async (page, stub) => {
      stub.visitor.fault = fault;
      await page.locator('.lost').waitFor();
      await shows(page, 'announcer', 'The line does not answer right now. Your place is kept, and we keep trying.');
      await polled(stub, 1);
      assert.equal(await text(page, 'position'), '1,234');
      Object.assign(stub.visitor, { fault: null, ahead: 99 });
      await shows(page, 'position', '100');
      await shows(page, 'announcer', 'Connected again.');
      assert.equal(await page.locator('.lost').isVisible(), false);
      assert.equal(stub.seen.pages, 1);
    });
  }

  for (const fault of [410, 404]) {
    scene(`a place that is gone (${fault}) is taken anew, once and not in a circle`, {}, async (page, stub) => {
      stub.visitor.fault = fault;
      await until('a reload', () => stub.seen.pages === 2);
      await polled(stub, 1);
      assert.equal(stub.seen.pages, 2, 'the second answer of the kind comes too soon for another reload');
      Object.assign(stub.visitor, { fault: null, ahead: 20 });
      await until('a new place', async () => (await text(page, 'position')) === '21');
      assert.equal(stub.seen.pages, 2);
    });
  }

  scene('a browser that keeps nothing does not reload in a circle either', {
    prepare: page => page.addInitScript(() => {
      Object.defineProperty(window, 'localStorage', { get() { throw new Error('blocked'); } });
    }),
  }, async (page, stub) => {
    const began = Date.now();
    const reload = page.waitForEvent('load');
    stub.visitor.fault = 404;
    await polled(stub, 1);
    assert.equal(stub.seen.pages, 1);
    await reload;
    assert.ok(Date.now() - began > 9_000, 'not before the page is ten seconds old');
    assert.equal(stub.seen.pages, 2);
  });

  scene('a hidden tab goes on asking, and asks at once when it is looked at late', {
    prepare: async page => {
      await page.clock.install();
      await page.addInitScript(() => Object.defineProperty(document, 'hidden', { get: () => window.tabIsHidden === true }));
    },
  }, async (page, stub) => {
    stub.visitor.pollMs = 60_000;
    await page.evaluate(() => { window.tabIsHidden = true; document.dispatchEvent(new Event('visibilitychange')); });
    await page.clock.runFor(1_000);
    await until('a poll while hidden', () => stub.seen.polls === 1);
    stub.visitor.ahead = 5;
    await until('the answer to it', async () => (await page.title()).startsWith('No. '));
    const look = () => page.evaluate(() => { window.tabIsHidden = false; document.dispatchEvent(new Event('visibilitychange')); });
    await look();
    await page.clock.runFor(1_000);
    assert.equal(stub.seen.polls, 1, 'nothing is due yet');
    // A sleeping machine runs no timers: its clock has jumped when it wakes up.
    await page.clock.setFixedTime(Date.now() + 3_600_000);
    await look();
    await until('a poll at once', () => stub.seen.polls === 2);
    await shows(page, 'position', '6');
  });

  scene('changes are announced sparingly', { prepare: page => page.clock.install() }, async (page, stub) => {
    stub.visitor.ahead = 1100;
    await page.clock.runFor(1_000);
    await shows(page, 'position', '1,101');
    assert.equal(await text(page, 'announcer'), '', 'a first change within the minute is not read out');
    stub.visitor.ahead = 900;
    await page.clock.fastForward(61_000);
    await shows(page, 'announcer', 'Your place in line: 901. Expected wait: about 25 minutes.');
  });

  const WAITS = [
    [59, 'less than a minute', '1분 이내'], [61, 'about 2 minutes', '약 2분'], [60, 'about 1 minute', '약 1분'],
    [3600, 'about 1 hour', '약 1시간'], [3601, 'about 1 hour 10 minutes', '약 1시간 10분'],
    [86_401, 'more than a day', '하루 이상'], [null, 'not known yet', '계산 중'],
  ];
  for (const [column, locale] of [[1, 'en-US'], [2, 'ko-KR']]) {
    scene(`the script says waits as the gateway does: ${locale}`, { context: { locale } }, async (page, stub) => {
      assert.equal(await page.locator('html').getAttribute('lang'), locale.slice(0, 2));
      for (const wait of WAITS) {
        stub.visitor.eta = wait[0];
        await shows(page, 'wait', wait[column]);
      }
    });
  }

  const soon = new Date(Date.now() + 3_600_000).toISOString();
  scene('before the doors open the time is counted down, and then the order begins', {
    visitor: { notice: 'opens', opensAt: soon, ahead: 10, eta: null },
  }, async (page, stub) => {
    assert.equal(await page.getByRole('timer').isVisible(), true);
    assert.match(await page.getByRole('timer').textContent(), /^00:5\d:\d\d$|^01:00:00$/);
    const expected = await page.evaluate(
      at => new Date(at).toLocaleString('en', { dateStyle: 'long', timeStyle: 'short' }), soon,
    );
    assert.equal(await text(page, 'opens'), expected);
    Object.assign(stub.visitor, { notice: 'moving', opensAt: null, ahead: 40 });
    await shows(page, 'position', '41');
    assert.equal(await text(page, 'heading'), 'You are in line');
    assert.equal(await page.locator('.opens').isVisible(), false);
  });

  const wrongClock = ms => page => page.addInitScript(ms => {
    const right = Date.now.bind(Date);
    Date.now = () => right() + ms;
  }, ms);
  for (const [wrong, ms] of [['ten minutes ahead', 6e5], ['ten minutes behind', -6e5]]) {
    scene(`the time to the opening is the gateway's, by a clock that is ${wrong} too`, {
      visitor: { notice: 'opens', opensAt: soon, ahead: 10, eta: null }, prepare: wrongClock(ms),
    }, async (page, stub) => {
      const near = async () => {
        const clock = await page.getByRole('timer').textContent();
        const [hours, minutes, seconds] = clock.split(':').map(Number);
        const left = (Date.parse(soon) - Date.now()) / 1e3;
        assert.ok(Math.abs(hours * 3600 + minutes * 60 + seconds - left) < 4, `${clock} for ${left} s`);
      };
      await near();
      await polled(stub, 2);
      await near();
    });
  }

  scene('a place that was taken anew under a clock a day ahead, which is right now, keeps nobody from another', {}, async (page, stub) => {
    await page.evaluate(() => localStorage.setItem('tidegate concert rejoined', Date.now() + 864e5));
    stub.visitor.fault = 404;
    await until('a new place', () => stub.seen.pages === 2);
    await polled(stub, 1);
    assert.equal(stub.seen.pages, 2, 'and not in a circle');
  });

  const doors = new Date('2026-12-23T12:30:00Z').toISOString();
  for (const locale of ['en-US', 'ko-KR']) {
    for (const [where, visitor] of [
      ['the lobby', { notice: 'lobby', opensAt: doors, inLobby: '1,234,567' }],
      ['before the opening', { notice: 'opens', opensAt: doors }],
      ['a line of millions', { ahead: 12_345_677, behind: 98_765_432, eta: 80_000 }],
    ]) {
      scene(`nothing is cut off on a narrow telephone: ${where}, ${locale}`, {
        context: { locale, viewport: { width: 320, height: 640 } }, visitor,
      }, async page => {
        const cut = await page.evaluate(() => [...document.querySelectorAll('main, main *')]
          .filter(element => element.checkVisibility() && !element.closest('.heard-by-reader'))
          .filter(element => element.getBoundingClientRect().right > innerWidth || element.getBoundingClientRect().left < 0)
          .map(element => element.outerHTML.slice(0, 80)));
        assert.deepEqual(cut, []);
      });
    }
  }

  const far = new Date(Date.now() + 30 * 86_400_000).toISOString();
  scene('an opening that is far off is not counted down', { visitor: { notice: 'opens', opensAt: far } }, async (page, stub) => {
    await polled(stub, 1);
    assert.equal(await page.locator('.opens').isVisible(), true);
    assert.equal(await page.locator('#countdown').isVisible(), false);
  });

  scene('a room on hold says so', {}, async (page, stub) => {
    assert.equal(await page.locator('.held').isVisible(), false);
    stub.visitor.notice = 'held';
    await page.locator('.held').waitFor();
  });

  scene('a screen reader finds one heading, the place, the facts and a quiet status', {}, async page => {
    const snapshot = await page.locator('body').ariaSnapshot();
    assert.equal(snapshot.replace(/time: .*/, 'time: ...'), `- main:
  - heading "You are in line" [level=1]
  - paragraph: Many people are here right now, so we let everyone in one after another.
  - paragraph:
    - text: Your place in line
    - strong: 1,234
  - progressbar "How far you have come"
  - term: Expected wait
  - definition: about 25 minutes
  - term: Ahead of you
  - definition: 1,233
  - term: Behind you
  - definition: 5,678
  - button "Play a sound when it is my turn"
  - paragraph: "You can close this tab. Your place is kept for 5 minutes: come back within that time and carry on where you were."
  - status
  - paragraph: This page updates by itself; there is no need to refresh.
  - paragraph:
    - text: Last updated
    - time: ...
  - paragraph: "Waiting room: concert"`);
  });

  for (const colorScheme of ['light', 'dark']) {
    scene(`all text stands out 4.5 : 1 or better: ${colorScheme}`, {
      context: { colorScheme }, visitor: { notice: 'held' },
    }, async page => {
      const weak = await page.evaluate(weakTexts);
      assert.deepEqual(weak, []);
    });
  }

  scene('who wants no motion gets none', { context: { reducedMotion: 'reduce' } }, async (page, stub) => {
    stub.visitor.ahead = 10;
    await shows(page, 'position', '11');
    assert.equal(await page.evaluate(() => document.getAnimations().length), 0);
  });

  scene('without JavaScript the page reloads itself until the visitor is let in', {
    context: { javaScriptEnabled: false },
  }, async (page, stub) => {
    // The page is exchanged for a new one every second, at any moment of the test.
    await page.locator('footer noscript p').waitFor();
    assert.equal(await page.locator('#progress').getAttribute('value'), '12', 'the gateway knows how far it is');
    assert.equal(await page.locator('#chime').isVisible(), false);
    stub.visitor.ahead = 3;
    await until('the new place', async () => (await page.locator('#position').textContent().catch(() => '')) === '4');
    const outlined = link => { link.focus({ focusVisible: true }); return getComputedStyle(link).outlineStyle === 'solid'; };
    await until('a focus that can be seen', () => page.locator('footer a').evaluate(outlined).catch(() => false));
    stub.visitor.state = 'called';
    await page.getByText(ORIGIN_TEXT).waitFor();
    assert.equal(stub.seen.polls, 0);
  });
});

/** Runs in the page: every text that is seen, with less contrast to what is behind it than 4.5 : 1. */
function weakTexts() {
  const channels = colour => colour.match(/[\d.]+/g).map(Number);
  const luminance = colour => {
    const [r, g, b] = channels(colour).map(c => c / 255).map(c => (c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const behind = element => {
    const colour = getComputedStyle(element).backgroundColor;
    return channels(colour)[3] === 0 ? behind(element.parentElement) : colour;
  };
  const weak = [];
  for (const element of document.querySelectorAll('main *')) {
    const own = [...element.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (!own || !element.checkVisibility()) continue;
    const [light, dark] = [getComputedStyle(element).color, behind(element)].map(luminance).sort((a, b) => b - a);
    const ratio = (light + .05) / (dark + .05);
    if (ratio < 4.5) weak.push(`${element.textContent}: ${ratio.toFixed(2)}`);
  }
  return weak;
}
