// Makes a component from a folder with a `service.js`, written against the contract in `wit/`.
//
//   npm install
//   node build.mjs <folder> <output.wasm> [<folder of the contract>]

import { componentize } from '@bytecodealliance/componentize-js';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const contract = fileURLToPath(new URL('../../wit', import.meta.url));
const [folder, output, witPath = contract] = process.argv.slice(2);
if (!folder || !output) {
  console.error('usage: node build.mjs <folder> <output.wasm> [<folder of the contract>]');
  process.exit(2);
}

const sourcePath = join(folder, 'service.js');
const usesFetch = /\bfetch\(/.test(await readFile(sourcePath, 'utf8'));

const { component } = await componentize({
  sourcePath,
  witPath,
  worldName: 'service',
  // Services answer HTTP by their handler: what they do not import, they cannot ask the host for.
  disableFeatures: usesFetch ? ['fetch-event'] : ['http', 'fetch-event'],
});
await writeFile(output, component);
