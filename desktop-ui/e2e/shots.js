/** Takes the pictures of the manual: each page with real jobs in it, light and dark, wide and narrow. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { BlobWriter, TextReader, ZipWriter } from '@zip.js/zip.js';

import { Stage, end, eventually, screenText, signIn, type } from './stage.js';

const SHOTS = join(import.meta.dirname, '../../docs/images');

const REPORT = `
for region in north south east west; do
  printf '\\033[36m%-6s\\033[0m ' "$region"
  awk -F, -v r="$region" '$1 == r { sum += $3; n++ } END { printf "%4d orders  %9.2f\\n", n, sum }' orders.csv | tee "out/$region.txt"
  sleep 0.4
done
printf '\\033[32m4 regions written\\033[0m\\n'
`.trim();

function orders() {
  let rows = ['region,day,amount'];
  let regions = ['north', 'south', 'east', 'west'];
  for (let index = 0; index < 4000; index += 1) {
    rows.push(`${regions[index % 4]},${(index % 28) + 1},${((index * 7919) % 9973) / 100}`);
  }
  return rows.join('\n') + '\n';
}

/** @param {Stage} stage */
async function attachment(stage) {
  let zip = new ZipWriter(new BlobWriter('application/zip'));
  await zip.add('orders.csv', new TextReader(orders()));
  await zip.add('report.sh', new TextReader(REPORT + '\n'));
  let path = join(stage.dir, 'orders-november.zip');
  await writeFile(path, new Uint8Array(await (await zip.close()).arrayBuffer()));
  return path;
}

/** @param {import('playwright-core').Page} page @param {string} path */
async function runReport(page, path) {
  let chooser = page.waitForEvent('filechooser');
  await page.getByRole('button', { name: 'Attach zip' }).click();
  await (await chooser).setFiles(path);
  await page.getByText('orders-november.zip').waitFor();
  await type(page, 'mkdir -p out\nsh report.sh');
}

/** @param {import('playwright-core').Page} page @param {string} name */
async function open(page, name) {
  let pages = page.getByRole('navigation', { name: 'Pages' });
  await pages.getByRole('link', { name, exact: true }).click();
  await page.getByRole('heading', { name, exact: true }).waitFor();
}

/** Gives one process a host name of its own, where this account may. @param {string} name */
function named(name) {
  return process.getuid?.() === 0
    ? ['unshare', '--uts', 'sh', '-c', 'hostname "$0" && exec "$@"', name]
    : [];
}

/** Jobs in every state, made by the coordinator's own API. @param {Stage} stage @param {string} token */
async function fill(stage, token) {
  let commands = [
    'cargo test --workspace --offline',
    'python3 -c "print(sum(range(10**6)))"',
    'sha256sum /etc/os-release',
    'seq 1 200000 | sort -R | sort -n | tail -1',
  ];
  for (let command of commands) await stage.ask(token, '/api/jobs/create', { command });
  let made = await stage.ask(token, '/api/jobs/create', { command: 'sleep 900' });
  await eventually('the jobs have ended', async () => {
    let { counts } = await stage.ask(token, '/api/jobs');
    return counts.completed + counts.failed === commands.length;
  });
  await stage.ask(token, '/api/jobs/cancel', { jobId: made.jobId });
  await stage.ask(token, '/api/jobs/create', {
    command: 'nice ./render --scene harbour --frames 1-240 || sleep 900',
  });
}

/** @param {import('playwright-core').Page} page @param {{jobId: string}} job @param {() => Promise<unknown>} shoot */
async function waitingJob(page, job, shoot) {
  await open(page, 'Jobs');
  await page.locator(`a[href="/jobs/${job.jobId}"]`).first().click();
  await page
    .getByText(/label gpu/)
    .first()
    .waitFor();
  await shoot();
}

/** @param {import('playwright-core').Page} page @param {(what: string) => Promise<unknown>} shoot */
async function optionsAndArray(page, shoot) {
  await page.getByRole('button', { name: 'More options' }).click();
  let dialog = page.getByRole('dialog', { name: 'More options' });
  await dialog.getByLabel('Or one for each item').fill('north\nsouth\neast\nwest');
  await shoot('options');
  await page.keyboard.press('Escape');
  await type(page, 'sleep 1; test "$LULL_ITEM" != east');
  await page.getByText('4 of 4').waitFor();
  await shoot('terminal-array');
  await page.getByRole('link', { name: /^[0-9a-f-]{36}$/ }).click();
  await page.getByRole('heading', { name: 'Jobs of this array' }).waitFor();
  await page.getByRole('table').getByText('Failed').waitFor();
  await shoot('array');
}

let stage = await Stage.open({ direct: true });
try {
  await mkdir(SHOTS, { recursive: true });
  let token = await stage.token();
  let path = await attachment(stage);
  await stage.worker('studio', ['--always', '--slots', '2'], named('studio-2'));
  await stage.worker('lab', ['--always', '--slots', '1'], named('lab-printer'));
  // Sees no idle owner on a machine without a screen, and so rests.
  await stage.worker('desk', ['--slots', '1'], named('front-desk'));
  let gone = await stage.worker('laptop', ['--always', '--slots', '1'], named('ada-laptop'));
  await eventually('all PCs have joined', async () => {
    let { workers } = await stage.ask(token, '/api/workers');
    return workers.length === 4;
  });
  await end(gone);
  await fill(stage, token);
  let waiting = await stage.ask(token, '/api/jobs/create', {
    name: 'Render the harbour',
    command: 'nice ./render --scene harbour --frames 1-240',
    requirements: { labels: ['gpu'] },
    priority: 4,
  });
  for (let colorScheme of /** @type {const} */ (['light', 'dark'])) {
    for (let [size, viewport] of /** @type {const} */ ([
      ['wide', { width: 1280, height: 800 }],
      ['narrow', { width: 390, height: 844 }],
    ])) {
      let page = await stage.page({ viewport, colorScheme, deviceScaleFactor: 2 });
      /** @param {string} what */
      let shoot = (what) =>
        page.mouse
          .move(0, 0)
          .then(() =>
            page.screenshot({ path: join(SHOTS, `browser-${what}-${colorScheme}-${size}.png`) }),
          );
      await page.goto(stage.url);
      await page.getByLabel('Token', { exact: true }).waitFor();
      await shoot('sign-in');
      await signIn(page, token);
      await page.getByText(/PCs? free/).waitFor();
      await shoot('welcome');
      await runReport(page, path);
      await eventually('output arrives', async () => (await screenText(page)).includes('east'));
      await shoot('terminal-running');
      await page.getByRole('button', { name: 'Download outputs.zip' }).waitFor();
      await shoot('terminal');
      await open(page, 'Jobs');
      await page.getByRole('table').waitFor();
      await shoot('jobs');
      await page.getByRole('table').getByRole('link', { name: /mkdir/ }).first().click();
      await eventually('the output is there', async () =>
        (await screenText(page)).includes('4 regions'),
      );
      await shoot('job');
      await waitingJob(page, waiting, () => shoot('job-waiting'));
      await open(page, 'Terminal');
      await optionsAndArray(page, shoot);
      await open(page, 'PCs');
      await page.getByRole('article').first().waitFor();
      await shoot('pcs');
      await open(page, 'This PC');
      await shoot('this-pc');
      await page.context().close();
    }
  }
} finally {
  await stage.close();
}
