// Sends messages.json by Segment's client for Node.js: node sdk.mjs <host> <write key>
import { readFileSync } from 'node:fs'
import { Analytics } from '@segment/analytics-node'

const [host, writeKey] = process.argv.slice(2)
const text = readFileSync(new URL('messages.json', import.meta.url), 'utf8')
const given = JSON.parse(text.replaceAll('{sdk}', 'node').replaceAll('{phone}', '+40 720 000 001'))
const timestamp = new Date(given.timestamp)

const failures = []
const analytics = new Analytics({ host, writeKey, flushAt: 20, maxRetries: 3 })
analytics.on('error', (error) => failures.push(error))
// What could not be delivered is told to the callback of its own message, too.
const told = (failure) => failure && failures.push(failure)

for (const { type, id, ...message } of given.messages) {
  analytics[type]({ ...message, messageId: `node-${id}`, timestamp }, told)
}
for (let i = 0; i < given.bulk; i++) {
  const messageId = `node-bulk-${i}`
  analytics.track({ userId: 'node-1', event: 'Page Scrolled', properties: { i }, messageId, timestamp }, told)
}
await analytics.closeAndFlush({ timeout: 30_000 })
for (const failure of failures.slice(0, 3)) console.error(failure)
process.exit(failures.length > 0 ? 1 : 0)
