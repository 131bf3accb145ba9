/** Tests of packing a folder: read back by a reader, the same bytes for the same folder. */
import { BlobReader, Uint8ArrayWriter, ZipReader } from '@zip.js/zip.js/index-native.js';
import { expect, test } from 'vitest';

import type { FolderFile } from './attachments';
import { looksRunnable, zipFolder } from './zip';

function aFile(path: string, content: string): FolderFile {
  return { path, file: new File([content], path, { lastModified: 1_795_000_000_000 }) };
}

async function zipOf(files: FolderFile[]): Promise<Uint8Array<ArrayBuffer>> {
  let parts: Uint8Array<ArrayBuffer>[] = [];
  let sink = new WritableStream<Uint8Array<ArrayBuffer>>({
    write: (bytes) => void parts.push(bytes.slice()),
  });
  await zipFolder(files, sink, () => undefined);
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

const FOLDER = [
  aFile('src/b.txt', 'b'.repeat(5000)),
  aFile('run.sh', '#!/bin/sh\n'),
  aFile('empty', ''),
];

test('a folder comes out as it went in, scripts runnable', async () => {
  let reader = new ZipReader(new BlobReader(new Blob([await zipOf(FOLDER)])));
  let entries = await reader.getEntries();
  expect(entries.map(({ filename }) => filename)).toEqual(['empty', 'run.sh', 'src/b.txt']);
  expect(entries.map(({ unixMode }) => (unixMode ?? 0).toString(8))).toEqual([
    '100644',
    '100755',
    '100644',
  ]);
  let last = entries[2];
  if (!last || last.directory) throw new Error('no such entry');
  let bytes = await last.getData(new Uint8ArrayWriter());
  expect(new TextDecoder().decode(bytes)).toBe('b'.repeat(5000));
});

test('the order in which files are found changes nothing, so the second time nothing is sent', async () => {
  expect(await zipOf(FOLDER.toReversed())).toEqual(await zipOf(FOLDER));
});

test('what its own format has packed is not packed again', async () => {
  let content = 'a'.repeat(5000);
  expect((await zipOf([aFile('a.txt', content)])).length).toBeLessThan(500);
  expect((await zipOf([aFile('a.PNG', content)])).length).toBeGreaterThan(5000);
});

test('progress counts the bytes of the files', async () => {
  let seen: number[] = [];
  await zipFolder(FOLDER, new WritableStream(), (done) => seen.push(done));
  expect(Math.max(...seen)).toBe(5010);
});

test('only the beginning of a file tells whether it is a program', () => {
  let starts = ['#!/b', '\x7fELF', '# no', '\x7fEL', ''];
  let bytes = (text: string) => Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  expect(starts.map((start) => looksRunnable(bytes(start)))).toEqual([
    true,
    true,
    false,
    false,
    false,
  ]);
});
