import { expect, test } from 'vitest';
import { cellText, guess, isAsNamed, mapped, Rows, separatorOf } from './csv.ts';

const rows = (text: string, size: number) => {
  const reader = new Rows(separatorOf(text));
  const pieces = text.match(new RegExp(`[^]{1,${size}}`, 'g')) ?? [];
  return [...pieces.flatMap((piece) => reader.take(piece)), ...reader.rest()].map((row) => row.map(cellText));
};

test('cells may have separators, quotes and lines in them, wherever the pieces end', () => {
  const text = 'title,tags\r\n"a, b","x ""y"""\r\n"two\nlines",\n\nlast,one';
  const expected = [['title', 'tags'], ['a, b', 'x "y"'], ['two\nlines', ''], [''], ['last', 'one']];
  for (const size of [1, 2, 3, 7, 100]) expect(rows(text, size)).toEqual(expected);
});

test('a quote within a bare cell is text, and what follows a closing one belongs to the cell, as the server reads it', () => {
  const text = 'a,"b\nb"\r\nc"c,d\n"e""\n",f\n6" pipe,"x"y\nlast,"open';
  const expected = [['a', 'b\nb'], ['c"c', 'd'], ['e"\n', 'f'], ['6" pipe', 'xy'], ['last', 'open']];
  for (const size of [1, 2, 3, 100]) expect(rows(text, size)).toEqual(expected);
});

test('names of other programs are understood, each field once', () => {
  expect(guess(['Name', 'Due Date', 'Labels', 'Owner', 'title'])).toEqual([null, 'due_at', 'tags', null, 'title']);
  expect(guess(['\uFEFFTitel', 'Aufgabe'])).toEqual(['title', null]);
});

test('an export goes back as it is', () => {
  const names = ['id', 'title', 'status', 'version'];
  expect(isAsNamed(names, guess(names))).toBe(true);
  expect(isAsNamed(['id', 'titel'], guess(['id', 'titel']))).toBe(false);
  expect(isAsNamed(['id', 'title'], [null, 'title']), 'a field that is left out by choice').toBe(false);
});

test('columns are renamed and left out, lines stay where they are', async () => {
  const file = new Blob(['Name;Owner;Notes\n"a; b";me;"one\ntwo"\n\nc;you;d\nshort;row\n']);
  const text = await (await mapped(file, ';', ['title', null, 'description'])).text();
  expect(text).toBe('title;description\n"a; b";"one\ntwo"\n\nc;d\nshort;row\n');
});
