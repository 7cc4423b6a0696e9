// Drives the official Dropbox SDK for JavaScript against the emulator. Arguments: the folder with node_modules, and
// host and port of the emulator. Ends with status 0 if the SDK saw what it would see from Dropbox.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import path from "node:path";

const [folder, host] = process.argv.slice(2);
const { Dropbox } = createRequire(path.join(folder, "package.json"))("dropbox");
const client = new Dropbox({ accessToken: "emulator-access-token", domain: host, domainDelimiter: "" });

async function fails(promise) {
  try {
    await promise;
  } catch (error) {
    return error.error?.error ?? error;
  }
  throw new Error("it succeeded");
}

assert.equal((await client.usersGetCurrentAccount()).result.email, "user@emulator.example");

// Names beyond ASCII, up and down.
const name = "/In/größe 😀.txt";
const uploaded = (await client.filesUpload({ path: name, contents: "hello\n" })).result;
assert.equal(uploaded.content_hash, "ecb65bb98f9d905b70458986c39fcbad7715e5f2fcc3b1f07767d7c83e2438cc");
const downloaded = (await client.filesDownload({ path: name })).result;
assert.equal(downloaded.fileBinary.toString(), "hello\n");
assert.equal((await fails(client.filesDownload({ path: "/nowhere" }))).path[".tag"], "not_found");

// A session in three requests, and its errors.
const session = (await client.filesUploadSessionStart({ contents: "abc" })).result.session_id;
await client.filesUploadSessionAppendV2({ cursor: { session_id: session, offset: 3 }, contents: "def" });
const misplaced = await fails(
  client.filesUploadSessionAppendV2({ cursor: { session_id: session, offset: 3 }, contents: "def" }),
);
assert.equal(misplaced[".tag"], "incorrect_offset");
assert.equal(misplaced.correct_offset, 6);
const finished = await client.filesUploadSessionFinish({
  cursor: { session_id: session, offset: 6 },
  commit: { path: "/in/session" },
  contents: "ghi",
});
assert.equal(finished.result.size, 9);

// Sessions at once: parts in any order, committed together.
const concurrent = (await client.filesUploadSessionStart({ session_type: "concurrent" })).result.session_id;
const block = 4 * 1024 * 1024;
const append = (offset, contents, close) =>
  client.filesUploadSessionAppendV2({ cursor: { session_id: concurrent, offset }, close, contents });
assert.equal((await fails(append(1, Buffer.alloc(block), false)))[".tag"], "concurrent_session_invalid_offset");
assert.equal((await fails(append(0, Buffer.alloc(5), false)))[".tag"], "concurrent_session_invalid_data_size");
await append(block, Buffer.alloc(block), false);
await append(0, Buffer.alloc(block), false);
await append(2 * block, Buffer.alloc(7, 1), true);
assert.equal((await fails(append(0, Buffer.alloc(block), false)))[".tag"], "closed");
const open = (await client.filesUploadSessionStart({ contents: "x" })).result.session_id;
const batch = (
  await client.filesUploadSessionFinishBatchV2({
    entries: [
      { cursor: { session_id: concurrent, offset: 2 * block + 7 }, commit: { path: "/in/concurrent" } },
      { cursor: { session_id: open, offset: 1 }, commit: { path: "/in/open" } },
    ],
  })
).result.entries;
assert.equal(batch[0][".tag"], "success");
assert.equal(batch[0].size, 2 * block + 7);
assert.equal(batch[1].failure.lookup_failed[".tag"], "not_closed");

// Batches, changes, search, revisions, archives.
const cursor = (await client.filesListFolderGetLatestCursor({ path: "", recursive: true })).result.cursor;
const launched = (
  await client.filesMoveBatchV2({
    entries: [
      { from_path: "/in/session", to_path: "/moved/session" },
      { from_path: "/nowhere", to_path: "/x" },
    ],
  })
).result;
let checked = launched;
while (checked[".tag"] !== "complete") {
  checked = (await client.filesMoveBatchCheckV2({ async_job_id: launched.async_job_id })).result;
}
assert.equal(checked.entries[0].success.path_display, "/moved/session");
assert.equal(checked.entries[1].failure.relocation_error.from_lookup[".tag"], "not_found");
assert.equal((await client.filesListFolderLongpoll({ cursor })).result.changes, true);
const changes = (await client.filesListFolderContinue({ cursor })).result.entries;
assert.deepEqual(changes.map((entry) => entry[".tag"]).sort(), ["deleted", "file", "folder"]);
const found = (await client.filesSearchV2({ query: "SESSION" })).result.matches;
assert.deepEqual(found.map((match) => match.metadata.metadata.path_display), ["/moved/session"]);
await client.filesUpload({ path: name, contents: "second", mode: { ".tag": "overwrite" } });
const revisions = (await client.filesListRevisions({ path: name })).result.entries;
assert.equal(revisions.length, 2);
await client.filesRestore({ path: name, rev: revisions[1].rev });
assert.equal((await client.filesDownload({ path: name })).result.fileBinary.toString(), "hello\n");
const archive = (await client.filesDownloadZip({ path: "/moved" })).result;
assert.equal(archive.fileBinary.subarray(0, 2).toString(), "PK");

// Links.
const link = (await client.sharingCreateSharedLinkWithSettings({ path: name })).result;
assert.equal(link[".tag"], "file");
const taken = await fails(client.sharingCreateSharedLinkWithSettings({ path: name }));
assert.equal(taken[".tag"], "shared_link_already_exists");
assert.equal((await client.sharingListSharedLinks({ path: name, direct_only: true })).result.links.length, 1);
assert.equal((await client.sharingGetSharedLinkFile({ url: link.url })).result.fileBinary.toString(), "hello\n");
await client.sharingRevokeSharedLink({ url: link.url });
assert.equal((await fails(client.sharingGetSharedLinkMetadata({ url: link.url })))[".tag"], "shared_link_not_found");
const temporary = (await client.filesGetTemporaryLink({ path: name })).result.link;
assert.equal(await (await fetch(temporary)).text(), "hello\n");

const deleted = (await client.filesDeleteBatch({ entries: [{ path: "/in" }, { path: "/moved" }] })).result;
assert.equal((await client.filesDeleteBatchCheck({ async_job_id: deleted.async_job_id })).result[".tag"], "in_progress");
assert.deepEqual((await client.filesListFolder({ path: "" })).result.entries, []);
