// CSV as spreadsheets write it (RFC 4180, and with semicolons or tabs), read piece by piece.

/** Fields of a task that a row can have; what else an export writes is not read. */
export const FIELDS = ['id', 'title', 'description', 'priority', 'due_at', 'tags', 'rank', 'created_at'] as const;
const NOT_READ = ['status', 'version', 'updated_at', 'started_at', 'completed_at'];

export type Field = (typeof FIELDS)[number];
/** For each column the field that it is; null: left out. */
export type Mapping = (Field | null)[];

/** What stands between the cells: the first that the header has. */
export function separatorOf(header: string): string {
  return /[,;\t]/.exec(header)?.[0] ?? ',';
}

/** Where in a row the reader is; `closing`: after a quote in a quoted cell, which ends it or is the first half of a doubled one. */
type Quotes = 'start' | 'bare' | 'inside' | 'closing';

/** As `crates/task-files/src/lines.rs` has it: a quote within a bare cell is text. */
function quotesAfter(quotes: Quotes, char: string, separator: string): Quotes {
  if (quotes === 'inside') return char === '"' ? 'closing' : 'inside';
  if (char === separator) return 'start';
  return char === '"' && quotes !== 'bare' ? 'inside' : 'bare';
}

/** Takes a text in pieces and gives the rows that are whole, each as it stands: cells with their quotes. A blank line is a row of one empty cell. */
export class Rows {
  readonly #separator: string;
  #cell = '';
  #cells: string[] = [];
  #quotes: Quotes = 'start';

  constructor(separator: string) {
    this.#separator = separator;
  }

  take(piece: string): string[][] {
    const rows: string[][] = [];
    for (const char of piece) {
      if (char === '\n' && this.#quotes !== 'inside') {
        rows.push(this.#row());
        continue;
      }
      this.#quotes = quotesAfter(this.#quotes, char, this.#separator);
      if (this.#quotes === 'start') this.#end();
      else this.#cell += char;
    }
    return rows;
  }

  /** The last row, which may have no line end. */
  rest(): string[][] {
    return this.#cell !== '' || this.#cells.length > 0 ? [this.#row()] : [];
  }

  #end() {
    this.#cells.push(this.#cell);
    this.#cell = '';
  }

  #row(): string[] {
    this.#end();
    this.#quotes = 'start';
    const row = this.#cells;
    this.#cells = [];
    const last = row.length - 1;
    row[last] = row[last]!.replace(/\r$/, '');
    return row;
  }
}

/** What a cell says; what stands after a closing quote belongs to it. */
export function cellText(cell: string): string {
  let text = '';
  let quotes: Quotes = 'start';
  for (const char of cell) {
    const next = quotesAfter(quotes, char, '');
    const isMark = (quotes === 'start' && next === 'inside') || next === 'closing';
    if (!isMark) text += char;
    quotes = next;
  }
  return text;
}

const OTHER_NAMES: Record<string, Field> = {
  name: 'title', task: 'title', summary: 'title', subject: 'title', content: 'title', titel: 'title', aufgabe: 'title',
  notes: 'description', note: 'description', details: 'description', body: 'description', beschreibung: 'description', notiz: 'description',
  due: 'due_at', due_date: 'due_at', deadline: 'due_at', 'fällig': 'due_at', 'fällig_am': 'due_at',
  labels: 'tags', label: 'tags', tag: 'tags', categories: 'tags', schlagwörter: 'tags',
  created: 'created_at', created_on: 'created_at', priorität: 'priority', order: 'rank',
};

/** The fields that columns with these names are likely to be, each field once. */
export function guess(names: string[]): Mapping {
  const plain = names.map((name) => name.trim().toLowerCase().replace(/^\uFEFF/, '').replace(/[\s-]+/g, '_'));
  const exact = plain.map((name) => (FIELDS as readonly string[]).includes(name));
  const taken = new Set<Field>(plain.filter((_, index) => exact[index]) as Field[]);
  const used = new Set<Field>();
  return plain.map((name, index) => {
    const field = exact[index] ? (name as Field) : OTHER_NAMES[name];
    if (!field || used.has(field) || (!exact[index] && taken.has(field))) return null;
    used.add(field);
    return field;
  });
}

/** Whether the server reads the file by that mapping as it is. */
export function isAsNamed(names: string[], mapping: Mapping): boolean {
  return names.every((name, index) => name === mapping[index] || (mapping[index] === null && NOT_READ.includes(name)));
}

/** The file with only the columns that are some field, under its name. Lines stay the lines that they were. */
export async function mapped(file: Blob, separator: string, mapping: Mapping): Promise<Blob> {
  const rows = new Rows(separator);
  const columns = mapping.flatMap((field, index) => (field === null ? [] : [index]));
  const parts: Blob[] = [];
  let isHeader = true;
  const write = (whole: string[][]) => {
    const lines = whole.map((row) => {
      if (isHeader) {
        isHeader = false;
        return columns.map((index) => mapping[index]).join(separator);
      }
      // a row of another length stays one: the server says which line it is
      if (row.length !== mapping.length) return row.join(separator);
      return columns.map((index) => row[index]).join(separator);
    });
    if (lines.length > 0) parts.push(new Blob([lines.join('\n'), '\n']));
  };
  const reader = file.stream().pipeThrough(new TextDecoderStream()).getReader();
  for (let next = await reader.read(); !next.done; next = await reader.read()) write(rows.take(next.value));
  write(rows.rest());
  return new Blob(parts, { type: 'text/csv' });
}
