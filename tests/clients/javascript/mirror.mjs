// Mattermost's own web app in a browser at a hub, while the edge is away and when it comes back.
//
// tests/system/clients.rs stops the edge and calls this with HOLDFAST_HUB_URL, HOLDFAST_USER and HOLDFAST_PASSWORD of a user of the hub, and HOLDFAST_CHANNEL
// (`team/channels/name`). It starts the edge again when it reads `ok - hub: answered`. Other variables as in webapp.mjs.

import {createRequire} from 'node:module';

const require = createRequire(`${process.env.HOLDFAST_NODE_MODULES}/node_modules/`);
const {chromium} = require('playwright-core');

const hub = process.env.HOLDFAST_HUB_URL;
let shots = 0;

async function said(page, step) {
    shots += 1;
    if (process.env.HOLDFAST_SHOTS) {
        await page.screenshot({path: `${process.env.HOLDFAST_SHOTS}/hub-${shots}.png`});
    }
    console.log(`ok - hub: ${step}`);
}

async function delivery(page, text) {
    // The app's own session answers, as it does for the app.
    return page.evaluate(async (wanted) => {
        const options = {headers: {'X-Requested-With': 'XMLHttpRequest'}};
        const teams = await (await fetch('/api/v4/users/me/teams', options)).json();
        const search = {...options, method: 'POST', body: JSON.stringify({terms: `"${wanted}"`, is_or_search: false})};
        const found = await (await fetch(`/api/v4/teams/${teams[0].id}/posts/search`, search)).json();
        const post = Object.values(found.posts)[0];
        return post.props?.holdfast?.delivery ?? 'confirmed';
    }, text);
}

const browser = await chromium.launch({executablePath: process.env.HOLDFAST_CHROMIUM, args: ['--no-sandbox', '--disable-gpu']});
const page = await browser.newPage({viewport: {width: 1280, height: 800}});
page.setDefaultTimeout(30_000);

await page.goto(`${hub}/login`);
await page.fill('#input_loginId', process.env.HOLDFAST_USER);
await page.fill('#input_password-input', process.env.HOLDFAST_PASSWORD);
await page.click('#saveSetting');
await page.waitForSelector('#post_textbox');
await page.goto(`${hub}/${process.env.HOLDFAST_CHANNEL}`);
await page.locator('.post-message__text', {hasText: 'Is the bridge open?'}).first().waitFor();
const banner = page.locator('.announcement-bar', {hasText: 'you read alpha as of'});
await banner.waitFor();
await said(page, 'the channel is read, with its age');

await page.fill('#post_textbox', 'Open for trucks');
await page.waitForTimeout(500);
await page.press('#post_textbox', 'Enter');
await page.locator('.post-message__text', {hasText: 'Open for trucks'}).first().waitFor();
const state = await delivery(page, 'Open for trucks');
if (state !== 'pending') {
    throw new Error(`the answer is ${state} while the edge is away`);
}
await said(page, 'answered');

for (let tries = 0; (await delivery(page, 'Open for trucks')) !== 'confirmed'; tries += 1) {
    if (tries > 300) {
        throw new Error('the answer was not confirmed within 60 s');
    }
    await page.waitForTimeout(200);
}
await banner.waitFor({state: 'detached'});
await said(page, 'confirmed, and the age is gone');
await browser.close();
