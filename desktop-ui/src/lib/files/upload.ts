/** Sends a blob to the coordinator, unless it has it already. */
import type { Send } from '$lib/api/client';
import { ProblemError, problemOf, unreachable } from '$lib/api/problem';
import type { Progress, Uploaded } from '$lib/platform';

import type { Packed } from './pack';

export async function uploadBlob(
  send: Send,
  token: () => string | null,
  packed: Packed,
  onProgress: (progress: Progress) => void,
  signal: AbortSignal,
): Promise<Omit<Uploaded, 'filename'>> {
  let { blob, digest } = packed;
  let known = await send(new Request(`/api/files/${digest}`, { method: 'HEAD', signal }));
  if (known.ok) return { digest, sizeBytes: blob.size, alreadyThere: true };
  // A reply to HEAD has no body that could say more.
  if (known.status !== 404) throw new ProblemError(await problemOf(known));
  await post(token(), blob, digest, onProgress, signal);
  return { digest, sizeBytes: blob.size, alreadyThere: false };
}

/** `fetch` does not tell how far an upload is; XMLHttpRequest does. */
function post(
  token: string | null,
  blob: Blob,
  digest: string,
  onProgress: (progress: Progress) => void,
  signal: AbortSignal,
): Promise<void> {
  return new Promise((resolve, reject) => {
    let request = new XMLHttpRequest();
    request.open('POST', '/api/files/upload');
    request.setRequestHeader('content-type', 'application/octet-stream');
    request.setRequestHeader('x-lull-digest', digest);
    if (token !== null) request.setRequestHeader('authorization', `Bearer ${token}`);
    request.upload.addEventListener('progress', ({ loaded, total }) => {
      onProgress({ sentBytes: loaded, totalBytes: total, phase: 'sending' });
    });
    request.addEventListener('load', () => {
      if (request.status >= 200 && request.status < 300) {
        resolve();
        return;
      }
      let reply = new Response(request.responseText, { status: request.status });
      void problemOf(reply).then((problem) => reject(new ProblemError(problem)));
    });
    request.addEventListener('error', () => reject(new ProblemError(unreachable())));
    request.addEventListener('abort', () => reject(new DOMException('', 'AbortError')));
    signal.addEventListener('abort', () => request.abort());
    request.send(blob);
  });
}
