// @azure/msal-node and @microsoft/microsoft-graph-client, unchanged, against graphsim.
//
// tests/graphsim/tests/it/clients.rs starts the simulator and calls this with GRAPHSIM, its line of JSON, with NODE_EXTRA_CA_CERTS,
// which names its authority, and with HOLDFAST_NODE_MODULES, the folder that the pinned packages are installed in. What was
// committed is compared there afterwards.

import assert from 'node:assert/strict';
import {createHash, X509Certificate} from 'node:crypto';
import {createRequire} from 'node:module';

const require = createRequire(`${process.env.HOLDFAST_NODE_MODULES}/package.json`);
const {ConfidentialClientApplication, CryptoProvider, PublicClientApplication} = require('@azure/msal-node');
const {
    BatchRequestContent, BatchResponseContent, Client, GraphError, LargeFileUploadTask, PageIterator, StreamUpload,
} = require('@microsoft/microsoft-graph-client');
const {Readable} = require('node:stream');

const sim = JSON.parse(process.env.GRAPHSIM);
const authority = `${sim.login}/${sim.tenant}`;
const host = new URL(sim.login).host;
const scope = `${sim.graph}/.default`;
const back = 'http://localhost:4711/back';

async function control(verb, body) {
    const answer = await fetch(`${sim.control}/_sim/${verb}`, body && {method: 'POST', body: JSON.stringify(body)});
    assert.ok(answer.ok, `${verb}: ${await answer.clone().text()}`);
    return answer.json();
}

function confidential(clientId, credential, capabilities) {
    const auth = {clientId, authority, knownAuthorities: [host], clientCapabilities: capabilities, ...credential};
    return new ConfidentialClientApplication({auth});
}

// What a browser does: open the page, fill it in, follow the redirect as far as its address.
async function signedIn(url, name) {
    const page = await (await fetch(url)).text();
    const ctx = /name="ctx" value="([^"]+)"/.exec(page)[1];
    const action = /action="([^"]+)"/.exec(page)[1];
    const body = new URLSearchParams({ctx, login: `${name}@contoso.example`, passwd: `${name}-password`});
    const answer = await fetch(action, {method: 'POST', body, redirect: 'manual'});
    assert.equal(answer.status, 302, await answer.text());
    return new URL(answer.headers.get('location')).searchParams;
}

async function identity() {
    const made = await control('credential', {name: 'official'});
    const ben = (await control('user', {userPrincipalName: 'ben@contoso.example', displayName: 'Ben', password: 'ben-password'})).id;
    for (let n = 0; n < 20; n++) {
        await control('user', {userPrincipalName: `user${n}@contoso.example`, displayName: `User ${n}`});
    }
    const app = (await control('app', {
        name: 'Official', secrets: [{value: 's3cret'}], certificates: [made.certificatePem],
        application: ['User.Read.All', 'Files.ReadWrite.All'],
        delegated: ['User.Read', 'ChannelMessage.Send', 'ChannelMessage.Read.All'],
        redirects: ['http://localhost/back'], identifierUri: 'api://sim.example/official',
    })).id;
    const team = await control('team', {displayName: 'Charlie', members: [ben], channels: ['Ops']});

    const bySecret = confidential(app, {clientSecret: 's3cret'});
    const first = await bySecret.acquireTokenByClientCredential({scopes: [scope]});
    const again = await bySecret.acquireTokenByClientCredential({scopes: [scope]});
    assert.equal(again.accessToken, first.accessToken);
    assert.ok(again.fromCache);
    await assert.rejects(confidential(app, {clientSecret: 'wrong'}).acquireTokenByClientCredential({scopes: [scope]}),
        (e) => e.errorCode === 'invalid_client' && /AADSTS7000215/.test(e.errorMessage));

    const der = new X509Certificate(made.certificatePem).raw;
    const certificate = {
        thumbprintSha256: createHash('sha256').update(der).digest('hex'), privateKey: made.keyPem, x5c: made.certificatePem,
    };
    const byCertificate = confidential(app, {clientCertificate: certificate}, ['cp1']);
    const long = await byCertificate.acquireTokenByClientCredential({scopes: [scope]});
    assert.ok(long.expiresOn - Date.now() > 20 * 3_600_000, 'a client that understands challenges gets a long token');
    await control('revoke/app', {id: app});
    const refused = await fetch(`${sim.graph}/v1.0/users`, {headers: {authorization: `Bearer ${long.accessToken}`}});
    assert.equal(refused.status, 401);
    const challenge = /claims="([^"]+)"/.exec(refused.headers.get('www-authenticate'))[1];
    await control('clock/advance', {ms: 2000});
    const claims = Buffer.from(challenge, 'base64').toString();
    const fresh = await byCertificate.acquireTokenByClientCredential({scopes: [scope], claims});
    assert.notEqual(fresh.accessToken, long.accessToken);

    const pkce = await new CryptoProvider().generatePkceCodes();
    const url = await bySecret.getAuthCodeUrl({
        scopes: ['User.Read', 'ChannelMessage.Send', 'ChannelMessage.Read.All'], redirectUri: back,
        codeChallenge: pkce.challenge, codeChallengeMethod: 'S256', state: 'here',
    });
    const returned = await signedIn(url, 'ben');
    assert.equal(returned.get('state'), 'here');
    const user = await bySecret.acquireTokenByCode({
        code: returned.get('code'), scopes: ['User.Read', 'ChannelMessage.Send', 'ChannelMessage.Read.All'], redirectUri: back,
        codeVerifier: pkce.verifier,
    });
    assert.equal(user.account.localAccountId, ben);
    const renewed = await bySecret.acquireTokenSilent({scopes: ['User.Read'], account: user.account, forceRefresh: true});
    assert.notEqual(renewed.accessToken, user.accessToken);
    const tab = (await control('tab-token', {user: ben, app})).token;
    const behalf = await bySecret.acquireTokenOnBehalfOf({oboAssertion: tab, scopes: ['User.Read']});
    assert.ok(behalf.accessToken);

    const line = (await control('app', {name: 'Command line', public: true, delegated: ['User.Read']})).id;
    const device = new PublicClientApplication({auth: {clientId: line, authority, knownAuthorities: [host]}});
    const got = await device.acquireTokenByDeviceCode({
        scopes: ['User.Read'],
        deviceCodeCallback: ({userCode}) => control('device', {userCode, user: ben}),
    });
    assert.equal(got.account.localAccountId, ben);
    return {ben, team, appToken: first.accessToken, userToken: user.accessToken};
}

function graphOf(token) {
    return Client.initWithMiddleware({
        baseUrl: `${sim.graph}/`, customHosts: new Set(['localhost']), authProvider: {getAccessToken: async () => token},
    });
}

async function graph({ben, team, appToken, userToken}) {
    const [byApp, byUser] = [graphOf(appToken), graphOf(userToken)];
    const names = [];
    const page = await byApp.api('/users').select('id,displayName').top(6).get();
    await new PageIterator(byApp, page, (user) => names.push(user.displayName)).iterate();
    assert.equal(new Set(names).size, 21);
    assert.equal(names.length, 21);

    await assert.rejects(byApp.api('/users/nobody').get(),
        (e) => e instanceof GraphError && e.statusCode === 404 && e.code === 'Request_ResourceNotFound' && Boolean(e.requestId));
    assert.equal((await byUser.api('/me').get()).id, ben);

    // A fraction of a second to wait, then a refusal without a word: the client waits for both.
    const channel = `/teams/${team.id}/channels/${team.channels.Ops}`;
    const fault = {method: 'POST', path: '/messages'};
    await control('fail', {...fault, failure: {kind: 'refused', status: 429, retry_after_s: 1.6}});
    await control('fail', {...fault, failure: {kind: 'refused', status: 503}});
    const begun = Date.now();
    const posted = await byUser.api(`${channel}/messages`).post({body: {contentType: 'html', content: '<p>from Node</p>'}});
    assert.ok(Date.now() - begun >= 1_600);
    await byUser.api(`${channel}/messages/${posted.id}/replies`).post({body: {content: 'and a reply'}});

    const drive = `/drives/${team.drive}`;
    await byApp.api(`${drive}/root:/Ops/small.txt:/content`).put('small');
    const read = await byApp.api(`${drive}/root:/Ops/small.txt:/content`).responseType('text').get();
    assert.equal(read, 'small');

    const content = createHash('shake256', {outputLength: 5 * 327_680 + 77}).update('node').digest();
    const session = await LargeFileUploadTask.createUploadSession(byApp, `${sim.graph}/v1.0${drive}/root:/Ops/large.bin:/createUploadSession`,
        {item: {'@microsoft.graph.conflictBehavior': 'fail'}});
    const file = new StreamUpload(Readable.from(pieces(content), {objectMode: false}), 'large.bin', content.length);
    const task = new LargeFileUploadTask(byApp, file, session, {rangeSize: 327_680});
    const {responseBody} = await task.upload();
    assert.equal(responseBody.size, content.length);

    // Addresses in a batch are relative and have no version; Node's Request knows only absolute ones.
    const relative = (path, init) => Object.defineProperty(new Request(`${sim.graph}${path}`, init), 'url', {value: path});
    const batch = new BatchRequestContent([
        {id: '1', request: relative('/me', {method: 'GET'})},
        {id: '2', request: relative(`${channel}/messages`, {
            method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify({body: {content: 'in a batch'}}),
        })},
    ]);
    const answers = new BatchResponseContent(await byUser.api('/$batch').post(await batch.getContent()));
    assert.equal(answers.getResponseById('1').status, 200);
    assert.equal(answers.getResponseById('2').status, 201);

    // Nothing of it goes to a host that is not Graph's.
    await byApp.api(`${sim.abroad}/v1.0/me`).get().catch(() => {});
}

function* pieces(content) {
    for (let at = 0; at < content.length; at += 65_536) {
        yield content.subarray(at, at + 65_536);
    }
}

await graph(await identity());
console.log('@azure/msal-node and @microsoft/microsoft-graph-client did what they were asked');
