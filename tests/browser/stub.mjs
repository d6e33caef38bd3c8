// A gateway in miniature: serves the rendered waiting page and answers the queue API as it is told to. It holds one
// visitor, so that a test can put that visitor into any situation, and there is nothing of a real queue in it.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';

const PAGES = new URL('.page/', import.meta.url);
export const ORIGIN_TEXT = 'Welcome to the concert';

/** Starts the stub on a free port. `visitor` may be changed at any time; `seen` counts what was asked for. */
export async function startStub({ name = 'builtin', port = 0, onAsked = () => {} } = {}) {
  const pages = { en: readPage(name, 'en'), ko: readPage(name, 'ko') };
  const csp = readPage(name, null);
  const visitor = {
    state: 'waiting', ahead: 1233, behind: 5678, eta: 1441, pollMs: 1000, notice: 'moving', opensAt: null,
    joinedAt: '2026-12-01T11:00:00Z',
    fault: null, // a status, 'drop' to close the connection, or 'nonsense' for JSON that says nothing
  };
  const seen = { pages: 0, polls: 0, enters: 0, entered: 0 };

  const server = createServer((request, response) => {
    const url = new URL(request.url, 'http://stub');
    if (url.pathname === '/queue/status') {
      seen.polls += 1;
      onAsked(visitor, seen);
      answerStatus(visitor, response);
    } else if (url.pathname === '/queue/enter' && request.method === 'POST') {
      seen.enters += 1;
      visitor.state = 'inside';
      answerStatus(visitor, response);
    } else if (!url.pathname.startsWith('/tickets')) {
      response.writeHead(404).end();
    } else if (visitor.state !== 'waiting') {
      seen.entered += 1;
      visitor.state = 'inside';
      response.setHeader('content-type', 'text/html; charset=utf-8');
      response.end(`<!doctype html><title>Origin</title><h1>${ORIGIN_TEXT}</h1>`);
    } else {
      seen.pages += 1;
      onAsked(visitor, seen);
      const language = /^ko/.test(request.headers['accept-language'] ?? '') ? 'ko' : 'en';
      response.setHeader('content-type', 'text/html; charset=utf-8');
      response.setHeader('content-security-policy', csp);
      response.setHeader('cache-control', 'no-store');
      response.end(fill(pages[language], language, visitor));
    }
  });
  await new Promise(resolve => server.listen(port, '127.0.0.1', resolve));
  const close = () => { server.close(); server.closeAllConnections(); };
  return { url: `http://127.0.0.1:${server.address().port}`, visitor, seen, close };
}

function answerStatus(visitor, response) {
  if (visitor.fault === 'drop') return response.destroy();
  response.setHeader('content-type', 'application/json');
  if (visitor.fault === 'nonsense') return response.end('{}');
  if (visitor.fault) return response.writeHead(visitor.fault).end('{}');
  response.end(JSON.stringify({
    room: 'concert', state: visitor.state, position: visitor.ahead + 1, ahead: visitor.ahead, behind: visitor.behind,
    eta_seconds: visitor.eta, as_of: new Date().toISOString(), next_poll_ms: visitor.pollMs, notice: visitor.notice, opens_at: visitor.opensAt ?? undefined, in_lobby: visitor.inLobby,
  }));
}

function readPage(name, language) {
  try {
    return readFileSync(new URL(language ? `${name}.${language}.html` : `${name}.csp`, PAGES), 'utf8');
  } catch {
    throw new Error('the rendered page is missing: run `npm run page` first');
  }
}

/** Puts plain values in; what the texts of a language look like is the concern of the unit tests. */
function fill(page, language, visitor) {
  const count = n => n.toLocaleString('en');
  const position = count(visitor.ahead + 1);
  const minutes = visitor.eta === null ? null : Math.ceil(visitor.eta / 60);
  const words = {
    en: { title: `No. ${position} in line`, heading: 'You are in line', wait: `about ${minutes} minutes`, kept: '5 minutes',
      lead: 'Many people are here right now, so we let everyone in one after another.', opens: 'December 1, 2026 at 11:00 UTC' },
    ko: { title: `대기 순번 ${position}번`, heading: '접속 대기 중입니다', wait: `약 ${minutes}분`, kept: '5분',
      lead: '지금 방문하신 분이 많아 순서대로 안내해 드리고 있습니다.', opens: '2026년 12월 1일 11:00(UTC)' },
  }[language];
  const lobby = {
    en: { heading: 'Not open yet', lead: 'You are early, and that is fine: once the doors open, everyone here is let in one after another.' },
    ko: { heading: '아직 시작 전입니다', lead: '시작 시각이 되면 이곳에서 기다리시는 분들부터 순서대로 안내해 드립니다.' },
  }[language];
  if (visitor.notice !== 'moving' && visitor.opensAt) Object.assign(words, lobby);
  const now = new Date().toISOString();
  const values = {
    room: 'concert', state: visitor.state, position, ahead: count(visitor.ahead), behind: count(visitor.behind),
    expected_wait: words.wait, heard_at: `${now.slice(11, 19)} UTC`, heard_at_iso: now, next_poll_ms: visitor.pollMs,
    refresh_seconds: Math.max(1, Math.ceil(visitor.pollMs / 1000)), language, title: words.title,
    heading: words.heading, lead: words.lead, notice: '', notice_kind: visitor.notice, in_lobby: visitor.inLobby ?? '',
    opens_at: visitor.opensAt ? words.opens : '', opens_at_iso: visitor.opensAt ?? '', queue_prefix: '/queue',
    abandon_after: words.kept, wait_seconds: visitor.eta ?? '', waited: words.kept, progress: 12,
    joined_at_iso: visitor.joinedAt,
  };
  return page.replace(/\{\{([a-z_]+)\}\}/g, (_, name) => values[name]);
}

if (import.meta.filename === process.argv[1]) {
  // The queue moves by a fixed step for each question, and at its end the visitor is called.
  const stub = await startStub({
    port: Number(process.env.PORT ?? 0),
    onAsked(visitor) {
      visitor.ahead = Math.max(0, visitor.ahead - 411);
      if (visitor.ahead === 0) visitor.state = 'called';
    },
  });
  console.log(stub.url);
}
