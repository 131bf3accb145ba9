/** The generated types are those of the document that the coordinator commits. */
import { readFile } from 'node:fs/promises';

import openapiTS, { astToString } from 'openapi-typescript';
import { expect, test } from 'vitest';

const DOCUMENT = new URL('../../../../coordinator/openapi.json', import.meta.url);
const TYPES = new URL('./schema.d.ts', import.meta.url);

test('the types are current; `npm run api` writes them anew', async () => {
  let expected = astToString(await openapiTS(JSON.parse(await readFile(DOCUMENT, 'utf8'))));
  let committed = await readFile(TYPES, 'utf8');
  // The command writes a heading above what the library returns.
  expect(committed.endsWith(expected), 'schema.d.ts is stale: run `npm run api`').toBe(true);
});
