/** The page in Chromium, with the real coordinator and a real worker behind it. */
import assert from 'node:assert/strict';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';

import {
  BlobReader,
  BlobWriter,
  TextReader,
  TextWriter,
  ZipReader,
  ZipWriter,
} from '@zip.js/zip.js';
import axe from 'axe-core';

import { Stage, eventually, screenText, type } from './stage.js';

/** @typedef {import('playwright-core').Page} Page */

/** @param {Page} page @param {string} text */
function sees(page, text) {
  return eventually(`the terminal shows ${JSON.stringify(text)}`, async () =>
    (await screenText(page)).includes(text),
  );
}

/** @param {Page} page @param {string} state */
function showsState(page, state) {
  return page.getByLabel('This command').getByText(state, { exact: true }).waitFor();
}

/** No serious hindrance for people with assistive technology. @param {Page} page @param {string} where */
async function isAccessible(page, where) {
  await page.evaluate(axe.source);
  let { violations } = await page.evaluate(() =>
    // @ts-expect-error axe puts itself on the window
    window.axe.run(document, { resultTypes: ['violations'] }),
  );
  /** @type {{ id: string, impact: string, nodes: { html: string, failureSummary: string }[] }[]} */
  let all = violations;
  let serious = all.filter(({ impact }) => impact === 'serious' || impact === 'critical');
  let words = serious.map(({ id, nodes }) =>
    nodes.map(({ html, failureSummary }) => `${id}: ${html}\n${failureSummary}`).join('\n'),
  );
  assert.equal(words.join('\n'), '', where);
}

/** @param {Page} page */
function widerThanItsWindow(page) {
  return page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
}

describe('the page in a browser', () => {
  /** @type {Stage} */
  let stage;
  let token = '';

  before(async () => {
    stage = await Stage.open();
    token = await stage.token();
    await stage.worker('worker');
  });
  afterEach(() => stage.closePages());
  after(() => stage.close());

  test('a wrong token is refused with words', async () => {
    let page = await stage.page();
    await page.goto(stage.url);
    await isAccessible(page, 'sign-in');
    await page.getByLabel('Token', { exact: true }).fill('lullt_wrong');
    await page.getByRole('button', { name: 'Sign in' }).click();
    let alert = page.getByRole('alert');
    await alert.waitFor();
    assert.match(await alert.innerText(), /valid token/i);
    assert.equal(await page.getByRole('textbox', { name: 'Command' }).count(), 0);
  });

  test('signing in lasts as long as the tab, and signing out ends it', async () => {
    let page = await stage.signedIn(token);
    await page.reload();
    await page.getByRole('textbox', { name: 'Command' }).waitFor();
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByLabel('Token', { exact: true }).waitFor();
    await page.reload();
    await page.getByLabel('Token', { exact: true }).waitFor();
  });

  test('a command with a zip runs live on another PC and its files come home', async () => {
    let page = await stage.signedIn(token);
    let zip = new ZipWriter(new BlobWriter('application/zip'));
    await zip.add('words.txt', new TextReader('calm\nsea\n'));
    let path = join(stage.dir, 'words.zip');
    await writeFile(path, new Uint8Array(await (await zip.close()).arrayBuffer()));

    let chooser = page.waitForEvent('filechooser');
    await page.getByRole('button', { name: 'Attach zip' }).click();
    await (await chooser).setFiles(path);
    await page.getByText('words.zip').waitFor();
    await type(
      page,
      [
        'echo first line',
        'mkdir out && tr a-z A-Z < words.txt > out/WORDS.txt',
        // Runs until the test has seen that the first line arrived before the end.
        'for i in $(seq 60); do sleep 0.1; done; echo last line',
      ].join('\n'),
    );

    await sees(page, 'first line');
    assert.ok(!(await screenText(page)).includes('\nlast line'), 'the first line came live');
    await showsState(page, 'Running');
    let link = page.getByLabel('This command').locator('a');
    assert.match((await link.getAttribute('href')) ?? '', /^\/jobs\/[0-9a-f-]{36}$/);
    await sees(page, 'words.zip');
    await showsState(page, 'Completed');
    await sees(page, 'exit code 0');

    let download = page.waitForEvent('download');
    await page.getByRole('button', { name: 'Download outputs.zip' }).click();
    let bytes = await readFile(await (await download).path());
    let entries = await new ZipReader(new BlobReader(new Blob([bytes]))).getEntries();
    let entry = entries.find(({ filename }) => filename === 'out/WORDS.txt');
    assert.ok(entry && !entry.directory, 'the result has the file');
    assert.equal(await entry.getData(new TextWriter()), 'CALM\nSEA\n');

    await page.getByRole('button', { name: 'Clear' }).click();
    await type(page, 'cat words.txt');
    await sees(page, 'already there, nothing sent');
    await showsState(page, 'Completed');
  });

  test('a folder is packed in the browser with its scripts runnable', async () => {
    let page = await stage.signedIn(token);
    let folder = join(stage.dir, 'project');
    await mkdir(join(folder, 'bin'), { recursive: true });
    await writeFile(join(folder, 'bin/greet'), '#!/bin/sh\necho "hello from $(basename "$0")"\n');
    await writeFile(join(folder, 'empty.txt'), '');
    let chooser = page.waitForEvent('filechooser');
    await page.getByRole('button', { name: 'Attach folder' }).click();
    await (await chooser).setFiles(folder);
    await page.getByText('project', { exact: true }).waitFor();
    await type(page, 'bin/greet && ls');
    await sees(page, 'hello from greet');
    await sees(page, 'empty.txt');
    await showsState(page, 'Completed');
  });

  test('output cannot do anything to the page but colour it', async () => {
    let page = await stage.signedIn(token);
    let before = await page.title();
    await type(
      page,
      String.raw`printf '\033]0;stolen\007\033[2J\033[31mred\033[0m <b>bold</b>\033[6n\n'`,
    );
    await sees(page, 'red <b>bold</b>');
    await showsState(page, 'Completed');
    assert.equal(await page.title(), before);
    assert.equal(await page.getByRole('textbox', { name: 'Command' }).inputValue(), '');
  });

  test('a failing line ends the job with its exit code', async () => {
    let page = await stage.signedIn(token);
    await type(page, 'echo before\nexit 3\necho never');
    await showsState(page, 'Failed');
    await sees(page, 'exit code 3');
    let text = await screenText(page);
    assert.equal(text.split('never').length, 2, 'only the typed line says never');
  });

  test('Ctrl+C cancels, and the arrow keys bring the command back', async () => {
    let page = await stage.signedIn(token);
    await type(page, 'echo started; sleep 600');
    await sees(page, 'running on');
    await showsState(page, 'Running');
    await page.getByRole('textbox', { name: 'Command' }).press('Control+c');
    await showsState(page, 'Cancelled');
    await page.getByRole('textbox', { name: 'Command' }).fill('a draft');
    await page.getByRole('textbox', { name: 'Command' }).press('ArrowUp');
    assert.equal(
      await page.getByRole('textbox', { name: 'Command' }).inputValue(),
      'echo started; sleep 600',
    );
    await page.getByRole('textbox', { name: 'Command' }).press('ArrowDown');
    assert.equal(await page.getByRole('textbox', { name: 'Command' }).inputValue(), 'a draft');
    await page.reload();
    await page.getByRole('textbox', { name: 'Command' }).press('ArrowUp');
    assert.equal(
      await page.getByRole('textbox', { name: 'Command' }).inputValue(),
      'echo started; sleep 600',
    );
  });

  test('leaving the terminal loses nothing, and jobs and PCs show what runs', async () => {
    let page = await stage.signedIn(token);
    await type(page, 'echo kept; sleep 600');
    await showsState(page, 'Running');
    await page.getByRole('link', { name: 'Jobs' }).click();
    await page.getByRole('link', { name: 'echo kept; sleep 600' }).waitFor();
    await page.getByRole('button', { name: /^Running 1/ }).click();
    await page.getByRole('link', { name: 'echo kept; sleep 600' }).click();
    await page.getByRole('heading', { name: 'Attempts' }).waitFor();
    await sees(page, 'kept');
    await page.getByRole('link', { name: 'PCs' }).click();
    await page.getByText('Runs one job').waitFor();
    await page.getByRole('link', { name: 'Terminal', exact: true }).click();
    await sees(page, 'kept');
    await page.getByRole('button', { name: 'Cancel' }).click();
    await showsState(page, 'Cancelled');
  });

  test('a job page opens by its address and cancels', async () => {
    let page = await stage.signedIn(token);
    let job = await stage.ask(token, '/api/jobs/create', { command: 'echo by address; sleep 600' });
    await page.goto(`${stage.url}/jobs/${job.jobId}`);
    await sees(page, 'by address');
    await page.getByRole('button', { name: 'Cancel' }).click();
    await page.getByRole('status').getByText('Cancelled').waitFor();
  });

  test('direct mode that is off says so and cannot be chosen', async () => {
    let page = await stage.signedIn(token);
    assert.ok(await page.getByLabel('Direct', { exact: true }).isDisabled());
    await page.getByText('--allow-direct').waitFor();
  });

  test('a viewer looks and cannot run', async () => {
    let page = await stage.page();
    await page.goto(stage.url);
    await page.getByLabel('Token', { exact: true }).fill(await stage.token('viewer', 'guest'));
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByPlaceholder(/may look, not run/).waitFor();
    assert.ok(await page.getByRole('textbox', { name: 'Command' }).isDisabled());
  });

  test('every page is accessible in both themes', async () => {
    for (let colorScheme of /** @type {const} */ (['light', 'dark'])) {
      let page = await stage.signedIn(token, { colorScheme });
      await type(page, String.raw`printf '\033[31mred \033[32mgreen \033[33myellow\033[0m\n'`);
      await showsState(page, 'Completed');
      await isAccessible(page, `terminal, ${colorScheme}`);
      for (let place of ['Jobs', 'PCs', 'This PC']) {
        await page.getByRole('link', { name: place, exact: true }).click();
        await page.getByRole('heading', { name: place, exact: true }).waitFor();
        if (place === 'Jobs') await page.getByRole('table').waitFor();
        if (place === 'PCs') await page.getByRole('article').first().waitFor();
        await isAccessible(page, `${place}, ${colorScheme}`);
      }
      await page.getByRole('link', { name: 'Jobs', exact: true }).click();
      await page.getByRole('table').getByRole('link').first().click();
      await page.getByRole('heading', { name: 'Details' }).waitFor();
      await isAccessible(page, `job, ${colorScheme}`);
    }
  });

  test('nothing is wider than a narrow window', async () => {
    let page = await stage.signedIn(token, { viewport: { width: 360, height: 740 } });
    await type(page, 'echo a rather long line that does not fit into a narrow window at all');
    await showsState(page, 'Completed');
    assert.ok((await widerThanItsWindow(page)) <= 0, 'terminal');
    for (let place of ['Jobs', 'PCs', 'This PC']) {
      await page.getByRole('link', { name: place, exact: true }).click();
      await page.getByRole('heading', { name: place, exact: true }).waitFor();
      assert.ok((await widerThanItsWindow(page)) <= 0, place);
    }
  });

  test('the keyboard alone reaches the content', async () => {
    let page = await stage.signedIn(token);
    await page.goto(`${stage.url}/jobs`);
    await page.getByRole('heading', { name: 'Jobs', exact: true }).waitFor();
    await page.keyboard.press('Tab');
    let skip = page.getByRole('link', { name: 'Skip to the content' });
    assert.ok(await skip.evaluate((link) => link === document.activeElement));
    await page.keyboard.press('Enter');
    assert.equal(await page.evaluate(() => document.activeElement?.id), 'content');
  });

  test('nothing of the page breaks its own rules', async () => {
    let page = await stage.page();
    /** @type {string[]} */
    let complaints = [];
    page.on('console', (message) => {
      if (message.type() === 'error' || message.type() === 'warning')
        complaints.push(message.text());
    });
    page.on('pageerror', (error) => complaints.push(error.message));
    await page.goto(stage.url);
    await page.getByLabel('Token', { exact: true }).fill(token);
    await page.getByRole('button', { name: 'Sign in' }).click();
    await type(page, 'echo quiet');
    await showsState(page, 'Completed');
    await page.getByRole('link', { name: 'PCs', exact: true }).click();
    await page.getByRole('article').first().waitFor();
    assert.deepEqual(complaints, []);
  });
});

describe('a pool without PCs', () => {
  /** @type {Stage} */
  let stage;
  let token = '';

  before(async () => {
    stage = await Stage.open({ direct: true });
    token = await stage.token();
  });
  afterEach(() => stage.closePages());
  after(() => stage.close());

  test('a job that waits says why, and runs once a PC joins', async () => {
    let page = await stage.signedIn(token);
    await page.getByText('No PC has joined yet').waitFor();
    await page.getByRole('link', { name: 'Jobs', exact: true }).click();
    await page.getByText('No jobs yet').waitFor();
    await page.getByRole('link', { name: 'PCs', exact: true }).click();
    await page.getByText('lull-coordinator join-code').waitFor();
    await page.getByRole('link', { name: 'Terminal', exact: true }).click();
    await type(page, 'echo at last');
    await page.getByText(/No PC has joined the pool yet/).waitFor();
    await stage.worker('late');
    await showsState(page, 'Completed');
    await sees(page, 'at last');
  });

  test('direct mode runs on the coordinator, streams and brings files home', async () => {
    let page = await stage.signedIn(token);
    await page.getByText('Direct', { exact: true }).click();
    await type(page, 'mkdir out; echo made here | tee out/here.txt');
    await sees(page, 'made here');
    await showsState(page, 'Completed');
    await page.getByRole('button', { name: 'Download outputs.zip' }).waitFor();
    await type(page, 'echo begun; sleep 600');
    await sees(page, 'begun');
    await page.getByRole('textbox', { name: 'Command' }).press('Control+c');
    await showsState(page, 'Stopped');
  });

  test('a coordinator that goes away is told in words, and the token survives its return', async () => {
    let page = await stage.signedIn(token);
    await page.route('**/api/**', (route) => route.abort());
    await page.getByRole('link', { name: 'Jobs', exact: true }).click();
    await page.getByRole('alert').getByText('The coordinator cannot be reached').waitFor();
    await page.unroute('**/api/**');
    await page.getByRole('table').waitFor();
    assert.equal(await page.getByRole('alert').count(), 0);
  });

  test('more options ask what the coordinator then says, and a wrong one is named', async () => {
    let page = await stage.signedIn(token);
    await page.getByRole('button', { name: 'More options' }).click();
    let dialog = page.getByRole('dialog', { name: 'More options' });
    await dialog.getByLabel('May run for').fill('soon');
    await dialog.getByRole('button', { name: 'Done' }).click();
    await dialog.getByRole('alert').getByText('May run for cannot be used').waitFor();
    await dialog.getByLabel('May run for').fill('10m');
    await dialog.getByLabel('Name', { exact: false }).first().fill('picky');
    await dialog.getByLabel('Labels').fill('gpu');
    await dialog.getByRole('button', { name: 'Done' }).click();
    await page.getByLabel('3 chosen').waitFor();
    await isAccessible(page, 'the terminal with options');
    await type(page, 'echo never');
    await page.getByText(/label gpu/).waitFor();
    await page.getByRole('link', { name: 'Jobs', exact: true }).click();
    await page.getByRole('link', { name: 'picky' }).click();
    await page.getByRole('heading', { name: 'Why it waits' }).waitFor();
    await page
      .getByText(/label gpu/)
      .first()
      .waitFor();
    await page.getByText('10 min').waitFor();
    await isAccessible(page, 'a job that waits');
    await page.getByRole('button', { name: 'Hold' }).click();
    await page.getByText('It is held. Release it to let it run.').waitFor();
    await page.getByRole('button', { name: 'Release' }).click();
    await page
      .getByText(/label gpu/)
      .first()
      .waitFor();
    await page.getByRole('button', { name: 'Cancel' }).click();
    await page.getByRole('button', { name: 'Run again' }).click();
    await page.getByText('Repeats').waitFor();
    await page.getByRole('button', { name: 'Cancel' }).click();
    await page.getByRole('status').getByText('Cancelled').waitFor();
  });

  test('an array shows how its jobs stand, and each of them has its page', async () => {
    let page = await stage.signedIn(token);
    await page.getByRole('button', { name: 'More options' }).click();
    let dialog = page.getByRole('dialog', { name: 'More options' });
    await dialog.getByLabel('Or one for each item').fill('north\nsouth\neast');
    await page.keyboard.press('Escape');
    await type(page, 'echo "bound for $LULL_ITEM"; test "$LULL_ITEM" != south');
    await page.getByText('3 of 3').waitFor();
    await showsState(page, 'Failed');
    await page.getByRole('link', { name: 'Jobs', exact: true }).click();
    await page.getByText('array of 3').first().waitFor();
    await page
      .getByRole('link', { name: /bound for/ })
      .first()
      .click();
    await page.getByRole('heading', { name: 'Jobs of this array' }).waitFor();
    await page.getByText('number 2').waitFor();
    await isAccessible(page, 'an array');
    await page
      .getByRole('row', { name: /number 0/ })
      .getByRole('link')
      .click();
    await sees(page, 'bound for north');
    await page.getByRole('link', { name: 'Its array' }).click();
    await page.getByRole('heading', { name: 'Jobs of this array' }).waitFor();
  });

  test('an administrator drains a PC and takes it back', async () => {
    let page = await stage.signedIn(await stage.token('admin'));
    await page.getByRole('link', { name: 'PCs', exact: true }).click();
    await page.getByRole('button', { name: 'Drain', exact: true }).click();
    await page.getByText('Draining', { exact: true }).waitFor();
    await page.getByRole('button', { name: 'End draining' }).click();
    await page.getByText('Free', { exact: true }).waitFor();
  });

  test('a page that shows the pool asks again only when something changed', async () => {
    let page = await stage.signedIn(token);
    await page.getByRole('link', { name: 'Jobs', exact: true }).click();
    await page.getByRole('table').waitFor();
    /** @type {string[]} */
    let asked = [];
    page.on('request', (request) => asked.push(new URL(request.url()).pathname));
    await stage.ask(token, '/api/jobs/create', { command: 'echo seen', name: 'seen by events' });
    await page.getByRole('link', { name: 'seen by events' }).waitFor();
    await page.getByText('Completed', { exact: true }).first().waitFor();
    let paths = asked.filter((path) => path !== '/api/jobs');
    assert.deepEqual(paths, [], 'the stream of events was there already');
    assert.ok(asked.length >= 1 && asked.length <= 8, `${asked.length} readings`);
  });
});
