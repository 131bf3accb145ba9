/** Starts the real coordinator and real workers for the browser tests and the screenshots, and ends them again. */
import { execFile, spawn } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { chromium } from 'playwright-core';

const run = promisify(execFile);

const BIN_DIR =
  process.env.LULL_BIN_DIR ??
  join(process.env.CARGO_TARGET_DIR ?? join(import.meta.dirname, '../../target'), 'debug');

const BROWSER_FLAGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/**
 * Waits until `look` finds something; says what it waited for when it does not.
 * @template T
 * @param {string} what
 * @param {() => Promise<T | null | undefined | false>} look
 * @returns {Promise<T>}
 */
export async function eventually(what, look, limitMs = 20_000) {
  let end = Date.now() + limitMs;
  for (;;) {
    let found = await look();
    if (found) return found;
    if (Date.now() > end) throw new Error(`waited ${limitMs} ms until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** One coordinator, its workers and a browser. */
export class Stage {
  /** @type {import('node:child_process').ChildProcess[]} */
  #children = [];
  /** @type {import('playwright-core').Browser | null} */
  #browser = null;
  #closing = false;
  dir = '';
  url = '';

  /** @param {{ direct?: boolean }} [options] */
  static async open({ direct = false } = {}) {
    let stage = new Stage();
    try {
      await stage.#start(direct);
    } catch (error) {
      await stage.close();
      throw error;
    }
    return stage;
  }

  /** @param {boolean} direct */
  async #start(direct) {
    this.dir = await mkdtemp(join(tmpdir(), 'lull-page-'));
    let ready = join(this.dir, 'ready.json');
    let listen = ['--listen', '127.0.0.1:0', '--http-listen', '127.0.0.1:0'];
    let flags = [...listen, '--ready-file', ready, '--data-dir', join(this.dir, 'coordinator')];
    this.#spawn('lull-coordinator', direct ? [...flags, '--allow-direct'] : flags, 'coordinator');
    let text = await eventually('the coordinator answers', () =>
      readFile(ready, 'utf8').catch(() => null),
    );
    this.url = JSON.parse(text).httpUrl;
    this.#browser = await chromium.launch({
      executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
      args: BROWSER_FLAGS,
    });
  }

  /**
   * Runs a subcommand of the coordinator on its data folder.
   * @param {string[]} args
   */
  async admin(...args) {
    let dataDir = ['--data-dir', join(this.dir, 'coordinator')];
    let { stdout } = await run(join(BIN_DIR, 'lull-coordinator'), [...args, ...dataDir]);
    return stdout.trim();
  }

  /** @param {string} [role] */
  token(role = 'submitter', name = 'ada') {
    return this.admin('token', '--role', role, '--name', name);
  }

  /**
   * A worker on a server that nobody sits at.
   * @param {string} name
   * @param {string[]} [more]
   * @param {string[]} [wrapper] a program that starts it
   */
  async worker(name, more = ['--always'], wrapper = []) {
    let code = await this.admin('join-code');
    let dataDir = join(this.dir, name);
    let args = ['--join', code, '--data-dir', dataDir, ...more];
    return this.#spawn('lull-worker', args, name, wrapper);
  }

  /** @param {import('playwright-core').BrowserContextOptions} [options] */
  async page(options = {}) {
    if (!this.#browser) throw new Error('the stage is not open');
    let context = await this.#browser.newContext({
      viewport: { width: 1280, height: 800 },
      ...options,
    });
    let page = await context.newPage();
    page.setDefaultTimeout(15_000);
    return page;
  }

  /** A page that is signed in already. @param {import('playwright-core').BrowserContextOptions} [options] */
  async signedIn(token = '', options = {}) {
    let page = await this.page(options);
    await page.goto(this.url);
    await signIn(page, token === '' ? await this.token() : token);
    return page;
  }

  /**
   * Asks the coordinator itself, past the page.
   * @param {string} token
   * @param {string} path
   * @param {unknown} [body]
   */
  async ask(token, path, body) {
    let headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
    let init = body === undefined ? {} : { method: 'POST', body: JSON.stringify(body) };
    let response = await fetch(this.url + path, { headers, ...init });
    return response.json();
  }

  /**
   * @param {string} program
   * @param {string[]} args
   * @param {string} name
   * @param {string[]} wrapper
   */
  #spawn(program, args, name, wrapper = []) {
    let log = createWriteStream(join(this.dir, `${name}.log`));
    let [file = '', ...rest] = [...wrapper, join(BIN_DIR, program), ...args];
    let child = spawn(file, rest, { stdio: ['ignore', 'pipe', 'pipe'] });
    child.on('error', (error) => process.stderr.write(`${program}: ${error.message}\n`));
    child.on('exit', (code, signal) => {
      if (!this.#closing) process.stderr.write(`${program} ended early: ${code ?? signal}\n`);
    });
    child.stdout.pipe(log, { end: false });
    child.stderr.pipe(log, { end: false });
    this.#children.push(child);
    return child;
  }

  /** Ends what the pages of one test still ask for. */
  async closePages() {
    for (let context of this.#browser?.contexts() ?? []) await context.close();
  }

  async close() {
    this.#closing = true;
    await this.#browser?.close();
    for (let child of this.#children.toReversed()) await end(child);
    await rm(this.dir, { recursive: true, force: true, maxRetries: 5 });
  }
}

/**
 * Asks a program to end, and makes it when it does not.
 * @param {import('node:child_process').ChildProcess} child
 */
export async function end(child) {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  let gone = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  let timer = setTimeout(() => child.kill('SIGKILL'), 10_000);
  await gone;
  clearTimeout(timer);
}

/**
 * @param {import('playwright-core').Page} page
 * @param {string} token
 */
export async function signIn(page, token) {
  await page.getByLabel('Token', { exact: true }).fill(token);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('textbox', { name: 'Command' }).waitFor();
}

/**
 * Types a command at the prompt and presses Enter.
 * @param {import('playwright-core').Page} page
 * @param {string} command
 */
export async function type(page, command) {
  await page.getByRole('textbox', { name: 'Command' }).fill(command);
  await page.getByRole('textbox', { name: 'Command' }).press('Enter');
}

/**
 * What the terminal shows, as text.
 * @param {import('playwright-core').Page} page
 */
export async function screenText(page) {
  return (await page.locator('.xterm-rows').innerText()).replaceAll('\u00a0', ' ');
}
