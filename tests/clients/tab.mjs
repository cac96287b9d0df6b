// The tab of Teams and Outlook in a browser: a page in the part of the host application shows the site in a frame and answers
// Microsoft's own library (@microsoft/teams-js) as Teams does.
//
// tests/system/tab.rs starts the node and calls this with HOLDFAST_NODE (where it listens), HOLDFAST_SITE_PORT and HOLDFAST_HOST_PORT (where
// the site and the host are to be reached with TLS), HOLDFAST_TAB_TOKEN (what Entra gave the host for the person),
// HOLDFAST_TAB_NAME (who the token names, in the API) and, for the sign-in without Entra, HOLDFAST_USER and HOLDFAST_PASSWORD. After each line `ok - ...` on its output it waits for a line on its input.
// HOLDFAST_NODE_MODULES holds playwright-core, HOLDFAST_CHROMIUM is the browser. With HOLDFAST_SHOTS (a directory) every step leaves a
// screenshot.

import {execFileSync} from 'node:child_process';
import {mkdtempSync, readFileSync, rmSync} from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import {createRequire} from 'node:module';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {createInterface} from 'node:readline';

const require = createRequire(`${process.env.HOLDFAST_NODE_MODULES}/node_modules/`);
const {chromium} = require('playwright-core');

const node = new URL(process.env.HOLDFAST_NODE);
const lines = createInterface({input: process.stdin})[Symbol.asyncIterator]();
let shots = 0;

async function said(page, step) {
    shots += 1;
    if (process.env.HOLDFAST_SHOTS) {
        await page.screenshot({path: `${process.env.HOLDFAST_SHOTS}/tab-${String(shots).padStart(2, '0')}.png`});
    }
    console.log(`ok - tab: ${step}`);
    await lines.next();
}

// Both parties of the frame are behind TLS, as they are for Teams: cookies of a frame and the library ask for it.
function certificate() {
    const dir = mkdtempSync(join(tmpdir(), 'tab-'));
    const [key, cert] = [join(dir, 'key.pem'), join(dir, 'cert.pem')];
    execFileSync('openssl', [
        'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '1', '-subj', '/CN=tab',
        '-keyout', key, '-out', cert,
    ], {stdio: 'ignore'});
    const pair = {key: readFileSync(key), cert: readFileSync(cert)};
    rmSync(dir, {recursive: true});
    return pair;
}

function listening(server, port) {
    return new Promise((resolve) => server.listen(Number(port), '127.0.0.1', resolve));
}

// What a gate in front of the node does.
function forward(request, answer) {
    const onward = http.request({
        host: node.hostname,
        port: node.port,
        method: request.method,
        path: request.url,
        headers: {...request.headers, 'x-forwarded-proto': 'https'},
    }, (got) => {
        answer.writeHead(got.statusCode, got.headers);
        got.pipe(answer);
    });
    onward.on('error', () => answer.destroy());
    request.pipe(onward);
}

// The host application: what Teams answers to the calls that the page makes. `mode` is what it can do at the time:
// `token`, `no token` (the client is cut off from Entra) or `silent` (it does not answer at all).
const host = (tab) => `<!doctype html><title>Host</title><style>iframe{width:100%;height:90vh;border:1px solid #888}</style>
<p>Host application</p><iframe src="${tab}"></iframe><script>
const {mode, token, asked} = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
const frame = document.querySelector('iframe').contentWindow;
addEventListener('message', ({data, source}) => {
    if (source !== frame || !data.func || mode === 'silent') return;
    const answer = (...args) => frame.postMessage({id: data.id, uuid: data.uuid, uuidAsString: data.uuidAsString, args}, '*');
    const runtime = JSON.stringify({apiVersion: 4, isLegacyTeams: false, supports: {}});
    switch (data.func) {
    case 'initialize': return answer('content', 'web', runtime, '2.0.0');
    case 'getContext': return answer({frameContext: 'content', subEntityId: asked, hostName: 'Teams'});
    case 'authentication.getAuthToken': return mode === 'token' ? answer(true, token) : answer(false, 'CancelledByUser');
    }
});
</script>`;

async function main() {
    const tls = certificate();
    const {HOLDFAST_SITE_PORT: sitePort, HOLDFAST_HOST_PORT: hostPort} = process.env;
    const tab = `https://chat.test:${sitePort}/holdfast/tab`;
    const page = (_, answer) => answer.setHeader('content-type', 'text/html').end(host(tab));
    await listening(https.createServer(tls, forward), sitePort);
    await listening(https.createServer(tls, page), hostPort);
    const browser = await chromium.launch({
        executablePath: process.env.HOLDFAST_CHROMIUM,
        args: ['--no-sandbox', '--host-resolver-rules=MAP *.test 127.0.0.1', '--test-third-party-cookie-phaseout'],
    });
    const open = async (mode, asked = '') => {
        const context = await browser.newContext({ignoreHTTPSErrors: true});
        const shown = await context.newPage();
        shown.on('console', (entry) => entry.type() === 'error' && console.log(`# ${entry.text()}`));
        const told = new URLSearchParams({mode, token: process.env.HOLDFAST_TAB_TOKEN, asked});
        await shown.goto(`https://teams.test:${hostPort}/#${told}`);
        const inner = await (await shown.waitForSelector('iframe')).contentFrame();
        return {shown, inner};
    };
    // Who the frame's session is, asked by the frame itself: no script may run in the site's plain front page.
    const me = async (inner) => {
        const front = inner.url();
        const answer = await inner.goto(new URL('/api/v4/users/me', front).href);
        const {username} = await answer.json();
        await inner.goto(front);
        return username;
    };

    const byHost = async (step) => {
        const at = await open('token');
        await at.inner.waitForURL((url) => url.pathname === '/', {timeout: 20_000});
        equal(await me(at.inner), process.env.HOLDFAST_TAB_NAME, 'the session belongs to whom Entra named');
        await said(at.shown, step);
    };
    await byHost('signed in by Entra');
    // Whoever started this has stopped Entra now.
    await byHost('signed in with a token that the host has kept');

    const local = async (mode, why) => {
        const at = await open(mode);
        await at.inner.locator('#local').waitFor({timeout: 20_000});
        const state = await at.inner.locator('#state').textContent();
        equal(state.startsWith(why), true, `${state} tells why`);
        await at.inner.locator('#name').fill(process.env.HOLDFAST_USER);
        await at.inner.locator('#password').fill('wrong');
        await at.inner.locator('button').click();
        await at.inner.locator('#refused', {hasText: /\S/}).waitFor();
        await said(at.shown, `${mode}: a wrong password is refused`);
        await at.inner.locator('#password').fill(process.env.HOLDFAST_PASSWORD);
        await at.inner.locator('button').click();
        await at.inner.waitForURL((url) => url.pathname === '/', {timeout: 20_000});
        equal(await me(at.inner), process.env.HOLDFAST_USER, 'the session belongs to whoever signed in');
        await said(at.shown, `${mode}: signed in with the local password`);
    };
    await local('no token', 'Microsoft’s sign-in cannot be reached.');
    await local('silent', 'The host application does not answer.');
    await browser.close();
    process.exit(0);
}

function equal(found, wanted, what) {
    if (found !== wanted) {
        throw new Error(`${what}: ${JSON.stringify(found)}, not ${JSON.stringify(wanted)}`);
    }
}

main().catch((error) => {
    console.error(error);
    process.exit(1);
});
