// Has every server that names no address listen on 127.0.0.1 alone: some programs have no option for that.
import { Server } from 'node:net'

const listen = Server.prototype.listen

Server.prototype.listen = function (port, ...rest) {
  const isPort = typeof port === 'number' || /^\d+$/.test(String(port))
  return listen.call(this, port, ...(isPort && typeof rest[0] !== 'string' ? ['127.0.0.1'] : []), ...rest)
}
