// Finds the number that solves a challenge: the SHA-256 of `CHALLENGE.NUMBER` must start with so many zero bits.
// Says how many it has tried, now and then, and at last the number, as `{ nonce }`.
'use strict';

const BLOCK = 64, TELL_EVERY = 16384;

// The first 32 bits of the fractional parts of the roots of the first primes, from which FIPS 180-4 makes its constants.
const K = new Int32Array(64), H = new Int32Array(8);
for (let prime = 2, found = 0; found < 64; prime++) {
  let divisor = 2;
  while (divisor * divisor <= prime && prime % divisor) divisor++;
  if (divisor * divisor <= prime) continue;
  if (found < 8) H[found] = (prime ** (1 / 2) % 1) * 2 ** 32;
  K[found++] = (prime ** (1 / 3) % 1) * 2 ** 32;
}

const w = new Int32Array(64);

/** One block of 16 words, in `w`, onto a state of eight. */
function compress(from, to) {
  for (let i = 16; i < 64; i++) {
    const x = w[i - 15], y = w[i - 2];
    const s0 = (x >>> 7 | x << 25) ^ (x >>> 18 | x << 14) ^ x >>> 3;
    const s1 = (y >>> 17 | y << 15) ^ (y >>> 19 | y << 13) ^ y >>> 10;
    w[i] = w[i - 16] + s0 + w[i - 7] + s1 | 0;
  }
  let a = from[0], b = from[1], c = from[2], d = from[3], e = from[4], f = from[5], g = from[6], h = from[7];
  for (let i = 0; i < 64; i++) {
    const s1 = (e >>> 6 | e << 26) ^ (e >>> 11 | e << 21) ^ (e >>> 25 | e << 7);
    const t1 = h + s1 + (e & f ^ ~e & g) + K[i] + w[i] | 0;
    const s0 = (a >>> 2 | a << 30) ^ (a >>> 13 | a << 19) ^ (a >>> 22 | a << 10);
    const t2 = s0 + (a & b ^ a & c ^ b & c) | 0;
    h = g; g = f; f = e; e = d + t1 | 0; d = c; c = b; b = a; a = t1 + t2 | 0;
  }
  to[0] = from[0] + a; to[1] = from[1] + b; to[2] = from[2] + c; to[3] = from[3] + d;
  to[4] = from[4] + e; to[5] = from[5] + f; to[6] = from[6] + g; to[7] = from[7] + h;
}

function fill(bytes) {
  for (let i = 0; i < 16; i++) {
    w[i] = bytes[4 * i] << 24 | bytes[4 * i + 1] << 16 | bytes[4 * i + 2] << 8 | bytes[4 * i + 3];
  }
}

onmessage = ({ data: { challenge, bits } }) => {
  const start = new TextEncoder().encode(challenge + '.');
  const whole = start.length - start.length % BLOCK;
  const middle = H.slice(), out = new Int32Array(8), last = new Uint8Array(BLOCK);
  // What does not change is hashed once: only the last block holds the number.
  for (let at = 0; at < whole; at += BLOCK) {
    fill(start.subarray(at, at + BLOCK));
    compress(middle.slice(), middle);
  }
  const rest = start.subarray(whole);
  for (let nonce = 0; ; nonce++) {
    const digits = String(nonce), end = rest.length + digits.length, length = 8 * (start.length + digits.length);
    last.fill(0);
    last.set(rest);
    for (let i = 0; i < digits.length; i++) last[rest.length + i] = digits.charCodeAt(i);
    last[end] = 128;
    last[62] = length >>> 8;
    last[63] = length;
    fill(last);
    compress(middle, out);
    if (out[0] >>> 32 - bits === 0) return postMessage({ nonce });
    if (nonce % TELL_EVERY === 0) postMessage({ tried: nonce });
  }
};
