// What is kept in this browser, by account: in IndexedDB, or where that is forbidden in memory, until the page is closed.

import { openDB, type IDBPDatabase } from 'idb';

export interface Kept {
  id: string;
  account: string;
}

export interface Records<T extends Kept> {
  /** Of one account, by id. */
  all(account: string): Promise<T[]>;
  get(id: string): Promise<T | undefined>;
  put(record: T): Promise<void>;
  delete(id: string): Promise<void>;
  clear(account: string): Promise<void>;
}

export function inMemory<T extends Kept>(): Records<T> {
  const records = new Map<string, T>();
  const of = (account: string) => [...records.values()].filter((record) => record.account === account);
  return {
    all: async (account) => of(account).sort((a, b) => (a.id < b.id ? -1 : 1)),
    get: async (id) => records.get(id),
    put: async (record) => void records.set(record.id, record),
    delete: async (id) => void records.delete(id),
    clear: async (account) => of(account).forEach(({ id }) => records.delete(id)),
  };
}

const STORES = ['outbox', 'seen'] as const;
let database: Promise<IDBPDatabase | null> | undefined;

function opened(): Promise<IDBPDatabase | null> {
  database ??= openDB('primetrade', 1, {
    upgrade(db) {
      for (const name of STORES) db.createObjectStore(name, { keyPath: 'id' }).createIndex('account', 'account');
    },
  }).catch(() => null);
  return database;
}

export function onDisk<T extends Kept>(store: (typeof STORES)[number]): Records<T> {
  // also what the disk had no room for
  const memory = inMemory<T>();
  return {
    async all(account) {
      const db = await opened();
      const kept: T[] = db ? await db.getAllFromIndex(store, 'account', account) : [];
      return [...kept, ...(await memory.all(account))];
    },
    async get(id) {
      const kept = (await (await opened())?.get(store, id)) as T | undefined;
      return kept ?? memory.get(id);
    },
    async put(record) {
      const db = await opened();
      await (db ? db.put(store, record).catch(() => memory.put(record)) : memory.put(record));
    },
    async delete(id) {
      await memory.delete(id);
      await (await opened())?.delete(store, id);
    },
    async clear(account) {
      await memory.clear(account);
      const db = await opened();
      if (!db) return;
      const { store: records, done } = db.transaction(store, 'readwrite');
      for (const id of await records.index('account').getAllKeys(account)) void records.delete(id);
      await done;
    },
  };
}
