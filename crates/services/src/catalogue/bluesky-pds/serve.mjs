// What the publisher's own image does: a server made of the environment, closed when it is asked to end.
import { PDS, envToCfg, envToSecrets, readEnv } from '@atproto/pds'

const env = readEnv()
const pds = await PDS.create(envToCfg(env), envToSecrets(env))
await pds.start()
console.log(`listening on port ${env.port}`)

process.on('SIGTERM', async () => {
  await pds.destroy()
  process.exit(0)
})
