// Waiting for things to happen, always with a deadline.

const LOOK_EVERY_MS = 50;

/** Looks again and again until `condition` gives something true, and gives that back. `what` is for the failure. */
export async function until(what, condition, deadlineMs = 15_000) {
  const end = Date.now() + deadlineMs;
  for (;;) {
    const outcome = await condition();
    if (outcome) return outcome;
    if (Date.now() > end) throw new Error(`not within ${deadlineMs} ms: ${what}`);
    await new Promise(resolve => setTimeout(resolve, LOOK_EVERY_MS));
  }
}
