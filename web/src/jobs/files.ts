// What a person gives to be imported, looked at before it is sent.

import { cellText, isAsNamed, mapped, Rows, separatorOf, type Mapping } from './csv.ts';

export type Format = 'csv' | 'ndjson';

/** The beginning of a file, as it would be read. */
export interface Preview {
  names: string[];
  rows: string[][];
  separator: string;
}

const LOOKED_AT_BYTES = 65_536;
const ROWS_SHOWN = 5;

export function formatOf(file: File): Format {
  return /json|jsonl/i.test(`${file.type} ${file.name.split('.').pop()}`) ? 'ndjson' : 'csv';
}

export async function look(file: File, format: Format): Promise<Preview> {
  const text = await file.slice(0, LOOKED_AT_BYTES).text();
  const whole = file.size <= LOOKED_AT_BYTES;
  if (format === 'csv') {
    const separator = separatorOf(text.split('\n', 1)[0]!);
    const reader = new Rows(separator);
    const rows = [...reader.take(text.replace(/^\uFEFF/, '')), ...(whole ? reader.rest() : [])];
    const [names = [], ...others] = rows.map((row) => row.map(cellText));
    return { names, rows: others.filter((row) => row.some((cell) => cell !== '')).slice(0, ROWS_SHOWN), separator };
  }
  const lines = text.split('\n').slice(0, whole ? undefined : -1).filter((line) => line.trim() !== '');
  return { names: ['type', 'title', 'task_id'], rows: lines.slice(0, ROWS_SHOWN).map(commandCells), separator: '' };
}

function commandCells(line: string): string[] {
  try {
    const { type, title, task_id } = JSON.parse(line) as Record<string, unknown>;
    return [type, title, task_id].map((value) => (value === undefined ? '' : String(value)));
  } catch {
    return [line.slice(0, 80), '', ''];
  }
}

/** As it is to be sent. */
export async function toSend(file: File, format: Format, preview: Preview, mapping: Mapping): Promise<Blob> {
  if (format === 'ndjson' || isAsNamed(preview.names, mapping)) return file;
  return mapped(file, preview.separator, mapping);
}

