#!/usr/bin/env python3
"""A TCP proxy on loopback before a server on loopback, which delays what passes, each way.

    bench/latency_proxy.py MILLISECONDS_EACH_WAY PORT_OF_THE_SERVER [ftp|connect]

With `ftp` the data connections that the server offers (EPSV, PASV) pass through it, too; with `connect` it is an HTTP
proxy that leads every CONNECT to the server. Prints its port, and ends with its standard input.
"""

import asyncio
import os
import re
import sys

CHUNK_BYTES = 256 * 1024
# What may be on its way, each way: more than 50 ms of what loopback can carry.
UNDERWAY_CHUNKS_MAX = 512

delay_s = float(sys.argv[1]) / 1000
server_port = int(sys.argv[2])
mode = sys.argv[3] if len(sys.argv) > 3 else ""


async def pass_on(reader, writer, rewrite=None):
    """Hands on what comes, each chunk after the delay, and its end."""
    underway = asyncio.Queue(UNDERWAY_CHUNKS_MAX)
    clock = asyncio.get_running_loop()

    async def receive():
        try:
            while chunk := await reader.read(CHUNK_BYTES):
                await underway.put((clock.time() + delay_s, chunk))
        except OSError:
            pass
        await underway.put((clock.time() + delay_s, b""))

    receiving = asyncio.create_task(receive())
    try:
        while True:
            due, chunk = await underway.get()
            await asyncio.sleep(max(0, due - clock.time()))
            if not chunk:
                break
            writer.write(await rewrite(chunk) if rewrite else chunk)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.close()
    finally:
        receiving.cancel()


async def relay(reader, writer, port, rewrite=None):
    try:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port, limit=CHUNK_BYTES)
    except OSError:
        writer.close()
        return
    await asyncio.gather(pass_on(reader, server_writer), pass_on(server_reader, writer, rewrite))
    for end in (server_writer, writer):
        end.close()


async def offer(port):
    """Another port, for one connection, that leads to this one."""
    async def accepted(reader, writer):
        listener.close()
        await relay(reader, writer, port)

    listener = await asyncio.start_server(accepted, "127.0.0.1", 0, limit=CHUNK_BYTES)
    return listener.sockets[0].getsockname()[1]


async def with_other_data_ports(reply):
    if found := re.match(rb"229 (.*)\(\|\|\|(\d+)\|\)", reply):
        return b"229 %b(|||%d|)\r\n" % (found[1], await offer(int(found[2])))
    if found := re.match(rb"227 (.*)\((\d+,\d+,\d+,\d+),(\d+),(\d+)\)", reply):
        port = await offer(int(found[3]) * 256 + int(found[4]))
        return b"227 %b(%b,%d,%d)\r\n" % (found[1], found[2], port // 256, port % 256)
    return reply


async def accepted(reader, writer):
    if mode == "connect":
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
    await relay(reader, writer, server_port, with_other_data_ports if mode == "ftp" else None)


async def main():
    listener = await asyncio.start_server(accepted, "127.0.0.1", 0, limit=CHUNK_BYTES)
    print(listener.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    # What is still on its way belongs to connections that nobody waits for.
    os._exit(0)


asyncio.run(main())
