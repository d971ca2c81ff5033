// A client that is nothing but types from the document and fetch: registers, logs in, and takes a task through its life.
// Whatever the document says wrongly about a name or a type does not compile; what it says wrongly about the server fails.
import createClient from 'openapi-fetch'

import type { components, paths } from './schema.js'

declare const process: { argv: string[] }

type Task = components['schemas']['Task']

function must<T>(answer: { data?: T; error?: unknown; response: Response }, status: number): T {
  if (answer.response.status !== status || answer.data === undefined) {
    throw new Error(`${answer.response.url}: ${answer.response.status} ${JSON.stringify(answer.error)}`)
  }
  return answer.data
}

function same(what: string, is: unknown, should: unknown): void {
  if (JSON.stringify(is) !== JSON.stringify(should)) {
    throw new Error(`${what} is ${JSON.stringify(is)}, not ${JSON.stringify(should)}`)
  }
}

const baseUrl = process.argv[2] ?? 'http://127.0.0.1:8080'
const client = createClient<paths>({ baseUrl })

const email = `client-${Date.now()}-${Math.random().toString(36).slice(2)}@example.com`
const password = 'correct horse battery'
const account = must(await client.POST('/api/v1/auth/register', { body: { email, password, name: 'Zoë' } }), 201)
same('the role', account.role, 'user')
const tokens = must(await client.POST('/api/v1/auth/login', { body: { email, password } }), 200)
client.use({
  onRequest({ request }) {
    request.headers.set('Authorization', `Bearer ${tokens.access_token}`)
    return request
  },
})

// the same request twice, one effect
const body = { title: 'Ring <script>alert(1)</script>', priority: 'high', tags: ['Home'] } as const
const headers = { 'Idempotency-Key': crypto.randomUUID() }
const first = await client.POST('/api/v1/tasks', { params: { header: headers }, body: { ...body, tags: [...body.tags] } })
const again = await client.POST('/api/v1/tasks', { params: { header: headers }, body: { ...body, tags: [...body.tags] } })
const { id, version } = must(first, 201)
same('the same again', must(again, 201), first.data)
same('Idempotent-Replayed', again.response.headers.get('Idempotent-Replayed'), 'true')

// a version that is not there any more
const path = { id }
const patched = await client.PATCH('/api/v1/tasks/{id}', {
  params: { path, header: { 'If-Match': `"${version}"` } },
  body: { due_at: '2027-01-31T12:00:00Z' },
})
const second = must(patched, 200)
const stale = await client.PATCH('/api/v1/tasks/{id}', {
  params: { path, header: { 'If-Match': `"${version}"` } },
  body: { title: 'too late' },
})
same('the status of a stale change', stale.response.status, 412)
same('its code', stale.error?.code, 'stale-version')

// a read that shows the write
const token = patched.response.headers.get('Consistency-Token') ?? ''
const read = await client.GET('/api/v1/tasks/{id}', { params: { path, header: { 'Consistency-Token': token } } })
const task: Task = must(read, 200)
same('the task', [task.title, task.priority, task.status, task.due_at, task.tags, task.version], [
  body.title,
  'high',
  'pending',
  '2027-01-31T12:00:00Z',
  ['home'],
  second.version,
])

const batch = must(
  await client.POST('/api/v1/commands', {
    body: {
      commands: [
        { type: 'CompleteTask', task_id: id },
        { type: 'CancelTask', task_id: id },
      ],
    },
  }),
  200,
)
const statuses = batch.results.map((result) => ('problem' in result ? result.problem.code : result.status))
same('what came of the batch', statuses, [200, 'transition-refused'])

const invalid = await client.POST('/api/v1/tasks', { body: { title: ' ' } })
same('the field that is wrong', invalid.error?.errors?.[0]?.pointer, '/title')

const page = must(await client.GET('/api/v1/tasks', { params: { query: { status: 'completed', limit: 1 } } }), 200)
same('next_cursor', page.next_cursor, null)
console.log(`a task in ${second.version + 1} versions, ${page.items.length} on the page of those completed`)
