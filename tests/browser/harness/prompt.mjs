// How soon a picture has to be there, and the story of a pause that ends that soon.

import assert from 'node:assert/strict';

export const PICTURE_MS = 1_000;

/** Pauses by one route, sees that the picture stands, resumes by the other, and sees it move within a second. */
export async function pausesAndResumes(call, { bob, alice, of, id }) {
  await bob.ask('request', 'POST', `/media/${of}/${id}/pause`, {});
  await bob.seesStandstillOf(alice);
  const since = await bob.page.call('now');
  await bob.ask('request', 'POST', `/media/${of}/${id}/resume`, {});
  const { afterMs } = await bob.sees(alice, { since });
  call.note(`picture ${afterMs} ms after the ${of} resumed`);
  assert.ok(afterMs <= PICTURE_MS, `a picture ${afterMs} ms after resume`);
  await bob.seesMotionOf(alice, { seconds: 1 });
}
