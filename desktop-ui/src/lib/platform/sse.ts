/** Server-sent events, parsed from the bytes of a fetch: `EventSource` cannot send a token. */

export interface ServerEvent {
  event: string;
  data: string;
  /** The last id seen, of this event or an earlier one: where to resume. */
  id: string;
}

/** Feeds on text in pieces of any size, gives whole events. Follows the WHATWG rules for the fields we use. */
export class SseParser {
  #rest = '';
  #event = '';
  #data: string[] = [];
  #id = '';
  #skipLineFeed = false;

  /** Takes the next piece and returns the events it completes. */
  push(text: string): ServerEvent[] {
    let events: ServerEvent[] = [];
    // A carriage return at the end of one piece and a line feed at the start of the next are one line end.
    if (this.#skipLineFeed && text.startsWith('\n')) text = text.slice(1);
    if (text !== '') this.#skipLineFeed = text.endsWith('\r');
    let lines = (this.#rest + text).split(/\r\n|\r|\n/);
    this.#rest = lines.pop() ?? '';
    for (let line of lines) {
      let event = this.#line(line);
      if (event) events.push(event);
    }
    return events;
  }

  #line(line: string): ServerEvent | null {
    if (line === '') return this.#dispatch();
    if (line.startsWith(':')) return null;
    let colon = line.indexOf(':');
    let field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (field === 'event') this.#event = value;
    else if (field === 'data') this.#data.push(value);
    else if (field === 'id' && !value.includes('\0')) this.#id = value;
    return null;
  }

  #dispatch(): ServerEvent | null {
    let event = this.#event || 'message';
    let data = this.#data;
    this.#event = '';
    this.#data = [];
    return data.length === 0 ? null : { event, data: data.join('\n'), id: this.#id };
  }
}

/** Reads a body to its end and calls back with each event. */
export async function readEvents(
  body: ReadableStream<Uint8Array>,
  onEvent: (event: ServerEvent) => void,
): Promise<void> {
  let parser = new SseParser();
  let decoder = new TextDecoder();
  let reader = body.getReader();
  for (;;) {
    let { done, value } = await reader.read();
    if (done) return;
    for (let event of parser.push(decoder.decode(value, { stream: true }))) onEvent(event);
  }
}
