/** Packs a folder into a zip and hashes the bytes as they come, away from the page's own thread. */
import { sha256 } from '@noble/hashes/sha2.js';
import { bytesToHex } from '@noble/hashes/utils.js';

import type { Picked } from './attachments';
import { zipFolder } from './zip';

export type PackReply =
  | { type: 'progress'; doneBytes: number; totalBytes: number }
  | { type: 'packed'; blob: Blob; digest: string }
  | { type: 'unreadable'; path: string };

/** Collected bytes become a blob part at this size: the browser keeps large blobs on disk. */
const PART_BYTES = 8 * 1024 * 1024;
const REPORT_EVERY_MS = 100;

let reported = 0;

function reply(message: PackReply): void {
  if (message.type === 'progress') {
    let now = performance.now();
    if (now - reported < REPORT_EVERY_MS) return;
    reported = now;
  }
  postMessage(message);
}

async function hashZip(file: File): Promise<void> {
  let hash = sha256.create();
  let done = 0;
  let reader = file.stream().getReader();
  for (;;) {
    let { done: end, value } = await reader.read();
    if (end || !value) break;
    hash.update(value);
    done += value.byteLength;
    reply({ type: 'progress', doneBytes: done, totalBytes: file.size });
  }
  reply({ type: 'packed', blob: file, digest: bytesToHex(hash.digest()) });
}

async function packFolder(picked: Picked & { kind: 'folder' }): Promise<void> {
  let hash = sha256.create();
  let parts: Blob[] = [];
  let waiting: Uint8Array<ArrayBuffer>[] = [];
  let waitingBytes = 0;
  function flush() {
    parts.push(new Blob(waiting));
    waiting = [];
    waitingBytes = 0;
  }
  let sink = new WritableStream<Uint8Array<ArrayBuffer>>({
    write(bytes) {
      hash.update(bytes);
      waiting.push(bytes.slice());
      waitingBytes += bytes.byteLength;
      if (waitingBytes >= PART_BYTES) flush();
    },
    close: flush,
  });
  let totalBytes = picked.files.reduce((sum, { file }) => sum + file.size, 0);
  await zipFolder(picked.files, sink, (doneBytes) => {
    reply({ type: 'progress', doneBytes, totalBytes });
  });
  let blob = new Blob(parts, { type: 'application/zip' });
  reply({ type: 'packed', blob, digest: bytesToHex(hash.digest()) });
}

addEventListener('message', ({ data }: MessageEvent<Picked>) => {
  let work = data.kind === 'zip' ? hashZip(data.file) : packFolder(data);
  work.catch(() => reply({ type: 'unreadable', path: data.name }));
});
