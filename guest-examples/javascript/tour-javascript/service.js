// Uses every function of every interface once: the place to look how a call is written in JavaScript.
//
// It wants the connections `disk` (local), `partner` (FTP), `vault` (SFTP), `team` (Dropbox) and `api` (HTTP), the
// service `hello`, and the parameter `url`, something at the origin of `api`. The parameter `only` names one of the
// chapters. The answer is a JSON list of steps: what each got. A chapter ends with the first step that fails, and its
// error.

import { Account } from 'wharf:host/dropbox@0.1.0';
import { Remote, Transfer, Upload } from 'wharf:host/files@0.1.0';
import { Server as FtpServer } from 'wharf:host/ftp@0.1.0';
import { send } from 'wharf:host/http@0.1.0';
import { invoke } from 'wharf:host/services@0.1.0';
import { Server as SftpServer } from 'wharf:host/sftp@0.1.0';
import { Body } from 'wharf:host/types@0.1.0';

// Numbers of 64 bits are of the type BigInt.
const LONG_AGO = { seconds: 1_000_000_000n, nanoseconds: 0 };
const STREAM_BYTES = 4096;

export const handler = {
  async handle(request) {
    const params = new Map(request.params);
    const only = params.get('only');
    const tour = new Tour(params.get('url'));
    let status = 200;
    for (const [name, chapter] of Object.entries(CHAPTERS)) {
      if (only && only !== name) continue;
      try {
        await chapter(tour);
      } catch (failure) {
        if (!(failure instanceof Stopped)) throw failure;
        status = 502;
      }
    }
    return { status, headers: [['content-type', 'application/json']], body: body(JSON.stringify(tour.steps)) };
  },
};

// A step failed; the error is among the steps.
class Stopped extends Error {}

class Tour {
  constructor(url) {
    this.url = url;
    this.steps = [];
  }

  // Does something and keeps what there is to show of what it got. An error of the contract is thrown as an object
  // whose `payload` is the record `{ code, message }`.
  step = (name, action, show = (got) => got) => {
    try {
      const got = action();
      this.steps.push({ step: name, got: show(got) ?? null });
      return got;
    } catch (failure) {
      if (!failure.payload) throw failure;
      const { code, message } = failure.payload;
      this.steps.push({ step: name, error: { code, message } });
      throw new Stopped(message);
    }
  };
}

// What there is to show of a resource.
function nothing() {}

function text(content) {
  return new TextDecoder().decode(Body.bytes(content));
}

function body(content) {
  return new Body(new TextEncoder().encode(content));
}

function names(entries) {
  return entries.map((entry) => entry.name).sort();
}

// ---- services -----------------------------------------------------------------------------------------------------

function useServices({ step }) {
  step('services.invoke', () => {
    // Of a request to another service, the host ignores the id and the trigger.
    const about = { id: '', trigger: { tag: 'http' }, method: 'GET', path: '' };
    return text(invoke('hello', { ...about, params: [['name', 'tour']], headers: [], body: body('') }).body);
  });
}

// ---- files --------------------------------------------------------------------------------------------------------

function useFiles({ step }) {
  const disk = step('files.remote.open', () => Remote.open('disk'), nothing);
  const options = { ifExists: 'fail', parents: true, modified: LONG_AGO };
  const filter = { patterns: ['*.txt'], exclude: ['d'] };
  step('files.ping', () => disk.ping().milliseconds >= 0n);
  step('files.make-directory', () => disk.makeDirectory('/tour'));
  step('files.make-directories', () => disk.makeDirectories('/tour/a/b'));
  step('files.write', () => Number(disk.write('/tour/report.csv', body('one,two\n'), 'fail').size));
  step('files.write-with', () => Number(disk.writeWith('/tour/c/old.txt', body('old'), options).modified.seconds));
  step('files.create', () => produce(disk.create('/tour/a/made.txt', 'replace'), 'made here'));
  step('files.create-with', () => produce(disk.createWith('/tour/d/made.txt', options), 'made there'));
  step('files.append', () => Number(disk.append('/tour/report.csv', body('three\n')).size));
  step('files.exists', () => [disk.exists('/tour/report.csv'), disk.exists('/tour/missing')]);
  step('files.stat', () => disk.stat('/tour/report.csv').kind);
  step('files.list', () => names(disk.list('/tour')));
  step('files.open-listing', () => names(pages(disk.openListing('/tour/c'))));
  step('files.walk', () => pages(disk.walk('/tour', filter)).map((entry) => entry.path).sort());
  step('files.read', () => text(disk.read('/tour/report.csv')));
  step('files.read-range', () => text(disk.readRange('/tour/report.csv', 4n, 3n)));
  step('types.body.size', () => Number(disk.read('/tour/report.csv').size()));
  step('types.body.stream', () => pieces(disk.read('/tour/report.csv')));
  step('types.body.from-stream', () => {
    const content = Body.fromStream(Body.stream(disk.read('/tour/report.csv')));
    return Number(disk.write('/tour/streamed.csv', content, 'replace').size);
  });
  step('files.copy', () => disk.copy('/tour/report.csv', '/tour/copy.csv', 'rename').name);
  step('files.checksum', () => disk.checksum('/tour/report.csv').algorithm);
  step('files.set-modified', () => disk.setModified('/tour/copy.csv', LONG_AGO));
  step('files.rename', () => disk.rename('/tour/copy.csv', '/tour/renamed.csv', 'fail'));
  step('files.delete', () => disk.delete('/tour/streamed.csv'));
  step('files.delete-tree', () => disk.deleteTree('/tour/d'));
  step('an error', () => errorOf(() => disk.write('/tour/report.csv', body('other'), 'fail')));
  // The files go from server to server, and never enter this service.
  for (const connection of ['partner', 'vault', 'team']) {
    const target = step(`files.remote.open ${connection}`, () => Remote.open(connection), nothing);
    step(`files.transfer to ${connection}`, () => transfer(disk, '/tour', target, '/tour'));
  }
}

// Content that the service itself makes, piece by piece. The stream ends before the upload is finished.
function produce(upload, content) {
  const bytes = new TextEncoder().encode(content);
  const stream = upload.content();
  for (let start = 0; start < bytes.length; start += STREAM_BYTES) {
    stream.blockingWriteAndFlush(bytes.subarray(start, start + STREAM_BYTES));
  }
  stream[Symbol.dispose]();
  return Number(Upload.finish(upload).size);
}

function pages(listing) {
  const entries = [];
  for (let page = listing.next(); page.length > 0; page = listing.next()) entries.push(...page);
  return entries;
}

function pieces(content) {
  const stream = Body.stream(content);
  const decoder = new TextDecoder();
  let read = '';
  for (;;) {
    try {
      read += decoder.decode(stream.blockingRead(BigInt(STREAM_BYTES)), { stream: true });
    } catch (failure) {
      // Any other error is a source that broke off.
      if (failure.payload?.tag !== 'closed') throw failure;
      return read + decoder.decode();
    }
  }
}

function errorOf(action) {
  try {
    action();
    return 'none';
  } catch (failure) {
    return failure.payload.code;
  }
}

function transfer(source, sourcePath, target, targetPath) {
  const underWay = Transfer.start(source, sourcePath, target, targetPath, {
    ifPresent: 'fail',
    filter: { patterns: ['*.csv'], exclude: [] },
    verification: 'content',
    deleteSource: false,
    resume: false,
    keepModified: true,
    parallel: 0,
  });
  const results = [];
  for (let result = underWay.next(); result; result = underWay.next()) {
    const { tag, val } = result.outcome;
    results.push([result.target, tag === 'transferred' ? Number(val.bytes) : `${tag}: ${val.message ?? val}`]);
  }
  return [...results.sort(), Number(underWay.progress().filesTransferred)];
}

// ---- dropbox ------------------------------------------------------------------------------------------------------

function useDropbox({ step }) {
  const team = step('dropbox.account.open', () => Account.open('team'), nothing);
  const everything = { recursive: true, includeDeleted: false };
  const upload = (path, content, mode) => team.upload(path, body(content), { mode, autorename: false, mute: true });
  const size = (metadata) => Number(metadata.size);

  step('dropbox.create-folder', () => team.createFolder('/trip').path);
  const cursor = step('dropbox.latest-cursor', () => team.latestCursor('/trip', everything), Boolean);
  const plan = step('dropbox.upload', () => upload('/trip/plan.txt', 'first plan', { tag: 'add' }), size);
  const first = plan.revision;
  const update = { tag: 'update', val: first };
  step('dropbox.upload an update', () => size(upload('/trip/plan.txt', 'second plan', update)));
  step('dropbox.upload over it', () => upload('/trip/notes.paper', '# Notes', { tag: 'overwrite' }).name);
  step('dropbox.longpoll', () => team.longpoll(cursor, 30n).changes);
  step('dropbox.changes', () => team.changes('/trip', cursor, everything).entries.map((entry) => entry.path).sort());
  step('dropbox.get-metadata', () => team.getMetadata('/trip/plan.txt').kind);
  step('dropbox.download', () => text(team.download('/trip/plan.txt')[1]));
  step('dropbox.list-folder', () => names(team.listFolder('/trip', false).entries));
  step('dropbox.list-folder-with', () => allPages(team, '/trip'));
  step('dropbox.search', () => allMatches(team, '/trip', 'n'));
  step('dropbox.revisions', () => team.revisions('/trip/plan.txt', 10).entries.length);
  step('dropbox.download-revision', () => text(team.downloadRevision('/trip/plan.txt', first)[1]));
  step('dropbox.restore', () => size(team.restore('/trip/plan.txt', first)));
  step('dropbox.export', () => team.export('/trip/notes.paper'), ([name, content]) => [name, text(content)]);
  step('dropbox.download-zip', () => text(team.downloadZip('/trip')).slice(0, 2));
  step('dropbox.copy', () => team.copy('/trip/plan.txt', '/trip/copy.txt', false).name);
  step('dropbox.move', () => team.move('/trip/copy.txt', '/trip/plan.txt', true).name);

  const both = (of, to) => [1, 2].map((n) => ({ source: `/trip/${of}${n}`, target: `/trip/${to}${n}` }));
  // Of a batch each entry has a result of its own.
  const folders = ['/trip/x1', '/trip/x2', '/trip'];
  step('dropbox.create-folder-batch', () => done(team, team.createFolderBatch(folders, false)));
  step('dropbox.copy-batch', () => done(team, team.copyBatch(both('x', 'y'), false)));
  step('dropbox.move-batch', () => done(team, team.moveBatch(both('y', 'z'), false)));
  step('dropbox.delete-batch', () => done(team, team.deleteBatch(['/trip/z1', '/trip/nothing'])));
  step('dropbox.save-url', () => done(team, team.saveUrl('/trip/saved', 'https://example.com/saved')));
  step('dropbox.delete', () => team.delete('/trip/x1').path);
  useLinks(step, team);
  step('dropbox.space-usage', () => team.spaceUsage().used > 0n);
  step('dropbox.current-account', () => team.currentAccount().email);
  useCalls(step, team);
}

function allPages(team, path) {
  let page = team.listFolderWith(path, { recursive: false, includeDeleted: false, limit: 1 });
  const entries = [...page.entries];
  while (page.hasMore) {
    page = team.listFolderContinue(page.cursor);
    entries.push(...page.entries);
  }
  return names(entries);
}

function allMatches(team, path, query) {
  let matches = team.search(path, query, { limit: 1, namesOnly: true, deleted: false, extensions: [] });
  const entries = [...matches.entries];
  while (matches.cursor !== undefined) {
    matches = team.searchContinue(matches.cursor);
    entries.push(...matches.entries);
  }
  return names(entries);
}

// What became of each entry. A small batch is done in a moment; for a large one, keep the text and check it in a later
// invocation.
function done(team, begun) {
  let batch = begun;
  while (batch.tag === 'under-way') batch = team.check(batch.val);
  return batch.val.map(({ tag, val }) => (tag === 'ok' ? val.path : val.code));
}

function useLinks(step, team) {
  const closed = { password: 'sesame', audience: 'public' };
  const share = () => team.createSharedLink('/trip/plan.txt', {});
  const { url } = step('dropbox.create-shared-link', share, (link) => link.name);
  step('dropbox.shared-links', () => team.sharedLinks('/trip/plan.txt').map((link) => link.path));
  step('dropbox.modify-shared-link', () => team.modifySharedLink('/trip/plan.txt', url, closed).name);
  step('dropbox.shared-link-metadata', () => team.sharedLinkMetadata(url, 'sesame').path);
  step('dropbox.shared-link-file', () => text(team.sharedLinkFile(url, 'sesame')[1]));
  step('dropbox.revoke-shared-link', () => team.revokeSharedLink('/trip/plan.txt', url));
  step('dropbox.temporary-link', () => team.temporaryLink('/trip/plan.txt'));
  step('dropbox.temporary-upload-link', () => team.temporaryUploadLink('/trip/sent.txt', 600n));
}

// Routes that have no function of their own, by their names in Dropbox's documentation.
function useCalls(step, team) {
  const call = (style, route, argument, content) => {
    const [result, answer] = team.call(style, route, JSON.stringify(argument), content);
    return [JSON.parse(result), answer];
  };
  const plan = { path: '/trip/plan.txt' };
  const called = { path: '/trip/called.txt' };
  step('dropbox.call rpc', () => call('rpc', 'files/get_metadata', plan)[0].name);
  step('dropbox.call upload', () => call('upload', 'files/upload', called, body('called'))[0].size);
  step('dropbox.call download', () => text(call('download', 'files/download', plan)[1]));
}

// ---- http, and the client of the language -------------------------------------------------------------------------

function useHttp({ step }) {
  const ask = (method, content) => {
    const about = { method, path: '/things', params: [['q', 'a&b']], headers: [['x-own', 'mine']] };
    const answer = send('api', { ...about, body: body(content) });
    return [answer.status, new Map(answer.headers).get('content-type'), text(answer.body)];
  };
  step('http.send GET', () => ask('GET', ''));
  step('http.send POST', () => ask('POST', 'a thing'));
}

async function useClient({ step, url }) {
  const ask = async (options) => {
    try {
      const answer = await fetch(url, { headers: { 'x-own': 'mine' }, ...options });
      return [answer.status, answer.headers.get('content-type'), await answer.text()];
    } catch (failure) {
      return [`${failure}`];
    }
  };
  const got = await ask({});
  step('client GET', () => got);
  const posted = await ask({ method: 'POST', body: 'a thing' });
  step('client POST', () => posted);
}

// ---- ftp, sftp ----------------------------------------------------------------------------------------------------

function useFtp({ step }) {
  const partner = step('ftp.server.open', () => FtpServer.open('partner'), nothing);
  step('files.write to partner', () => Number(Remote.open('partner').write('/raw.txt', body('raw'), 'replace').size));
  step('ftp.command', () => partner.command('SIZE /raw.txt').lines);
  step('ftp.site', () => partner.site('CHMOD 600 /raw.txt').code);
  step('ftp.features', () => partner.features().includes('UTF8'));
}

function useSftp({ step }) {
  const vault = step('sftp.server.open', () => SftpServer.open('vault'), nothing);
  const files = step('files.remote.open vault', () => Remote.open('vault'), nothing);
  step('files.make-directories on vault', () => files.makeDirectories('/safe/empty'));
  step('files.write to vault', () => Number(files.write('/safe/file', body('content'), 'replace').size));
  const info = step('sftp.get-info', () => vault.getInfo('/safe/file'), ({ kind, size }) => [kind, Number(size)]);
  const owner = (id) => ({ tag: 'id', val: id });
  step('sftp.symlink', () => vault.symlink('file', '/safe/link'));
  step('sftp.hard-link', () => vault.hardLink('/safe/file', '/safe/second'));
  step('sftp.follow-info', () => vault.followInfo('/safe/link').kind);
  step('sftp.list', () => names(vault.list('/safe')));
  step('sftp.is-directory', () => [vault.isDirectory('/safe'), vault.isDirectory('/safe/link')]);
  step('sftp.is-file', () => [vault.isFile('/safe/file'), vault.isFile('/safe')]);
  step('sftp.is-symlink', () => [vault.isSymlink('/safe/link'), vault.isSymlink('/safe/file')]);
  step('sftp.read-link', () => vault.readLink('/safe/link'));
  step('sftp.realpath', () => vault.realpath('/safe/link'));
  step('sftp.chmod', () => vault.chmod('/safe/file', 0o640));
  step('sftp.chown', () => vault.chown('/safe/file', owner(info.user), owner(info.group)));
  step('sftp.set-times', () => vault.setTimes('/safe/file', undefined, LONG_AGO));
  step('sftp.statvfs', () => vault.statvfs('/safe').bytes > 0n);
  step('sftp.fsync', () => vault.fsync('/safe/file'));
  step('sftp.download-file', () => text(vault.downloadFile('/safe/second')));
  step('sftp.execute', () => script(vault.execute('cd /safe\nrename second third\n-rm missing\n')));
  const disk = step('files.remote.open disk', () => Remote.open('disk'), nothing);
  step('files.write to disk', () => Number(disk.write('/local.txt', body('local'), 'replace').size));
  step('sftp.execute-with', () => script(vault.executeWith('put local.txt /safe/put.txt\n', disk, '/')));
  step('sftp.delete-file', () => vault.deleteFile('/safe/third'));
  step('sftp.delete-symlink', () => vault.deleteSymlink('/safe/link'));
  step('sftp.delete-directory', () => vault.deleteDirectory('/safe/empty'));
  step('sftp.delete', () => vault.delete('/safe/put.txt'));
}

function script(result) {
  return [result.isComplete, result.commands.map((command) => command.error?.code ?? null)];
}

const CHAPTERS = {
  services: useServices,
  files: useFiles,
  dropbox: useDropbox,
  http: useHttp,
  client: useClient,
  ftp: useFtp,
  sftp: useSftp,
};
