// Mattermost's own web app in a browser, served by a node.
//
// tests/system/clients.rs starts the node with `http.webapp` and calls this with its address and administrator:
// HOLDFAST_EDGE_URL, HOLDFAST_EDGE_ADMIN, HOLDFAST_EDGE_PASSWORD. HOLDFAST_NODE_MODULES holds playwright-core, HOLDFAST_CHROMIUM is the
// browser. With HOLDFAST_SHOTS (a directory) every step leaves a screenshot.

import {createRequire} from 'node:module';

const require = createRequire(`${process.env.HOLDFAST_NODE_MODULES}/node_modules/`);
const {chromium} = require('playwright-core');

const site = process.env.HOLDFAST_EDGE_URL;
const password = process.env.HOLDFAST_EDGE_PASSWORD;
const mark = Math.floor(Math.random() * 2 ** 32).toString(16).padStart(8, '0');
// A PNG of one red pixel.
const png = Buffer.from(
    'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==', 'base64');

let shots = 0;
const trouble = [];

async function api(token, method, path, body) {
    const answer = await fetch(`${site}/api/v4${path}`, {
        method,
        headers: {...(token && {Authorization: `Bearer ${token}`}), 'Content-Type': 'application/json'},
        body: body && JSON.stringify(body),
    });
    const json = await answer.json();
    if (!answer.ok) {
        throw new Error(`${method} ${path}: ${answer.status} ${JSON.stringify(json)}`);
    }
    return {json, token: answer.headers.get('Token')};
}

async function signIn(name) {
    const {json, token} = await api('', 'POST', '/users/login', {login_id: name, password});
    return {...json, token};
}

async function said(page, step) {
    shots += 1;
    if (process.env.HOLDFAST_SHOTS) {
        await page.screenshot({path: `${process.env.HOLDFAST_SHOTS}/${String(shots).padStart(2, '0')}.png`});
    }
    console.log(`ok - web app: ${step}`);
}

// The app takes what is in a field a moment after it was put there.
async function write(page, field, text) {
    await page.fill(field, text);
    await page.waitForTimeout(500);
    await page.press(field, 'Enter');
}

const message = (page, text) => page.locator('.post-message__text', {hasText: text}).first();
const post = (page, text) => page.locator('.post', {has: page.locator('.post-message__text', {hasText: text})}).first();

async function main() {
    const admin = await signIn(process.env.HOLDFAST_EDGE_ADMIN);
    const {json: team} = await api(admin.token, 'POST', '/teams', {name: `web-${mark}`, display_name: 'Web', type: 'O'});
    const people = {};
    for (const name of ['wanda', 'bob']) {
        await api(admin.token, 'POST', '/users', {email: `${name}-${mark}@example.mil`, username: `${name}-${mark}`, password});
        people[name] = await signIn(`${name}-${mark}`);
        await api(admin.token, 'POST', `/teams/${team.id}/members`, {team_id: team.id, user_id: people[name].id});
    }
    const {bob} = people;
    const {json: ops} = await api(bob.token, 'POST', '/channels', {team_id: team.id, name: 'ops', display_name: 'Operations', type: 'O'});
    await api(bob.token, 'POST', `/channels/${ops.id}/members`, {user_id: people.wanda.id});

    const browser = await chromium.launch({executablePath: process.env.HOLDFAST_CHROMIUM, args: ['--no-sandbox', '--disable-gpu']});
    const page = await browser.newPage({viewport: {width: 1280, height: 800}});
    page.setDefaultTimeout(30_000);
    page.on('pageerror', (error) => trouble.push(`error in the page: ${error}`));
    page.on('response', (answer) => {
        if (answer.status() >= 500 && answer.status() !== 501) {
            trouble.push(`${answer.status()} ${answer.request().method()} ${answer.url()}`);
        }
    });
    page.on('response', (answer) => {
        if (answer.status() === 404 && answer.url().includes('/api/v4/')) {
            console.log(`   404 ${answer.request().method()} ${answer.url().replace(site, '')}`);
        }
    });

    try {
        await use(page, mark, ops, bob);
    } catch (error) {
        await said(page, `FAILED after this: ${error}`);
        throw error;
    }
    await browser.close();
    if (trouble.length > 0) {
        throw new Error(trouble.join('\n'));
    }
}

async function use(page, mark, ops, bob) {
    await page.goto(`${site}/login`);
    await page.fill('#input_loginId', `wanda-${mark}`);
    await page.fill('#input_password-input', password);
    await page.click('#saveSetting');
    await page.waitForSelector('#post_textbox');
    await said(page, 'log in');

    await page.click('#sidebarItem_ops');
    await page.waitForSelector('#channelHeaderTitle:has-text("Operations")');
    await said(page, 'switch channels');

    await write(page, '#post_textbox', 'Bridge is open');
    await message(page, 'Bridge is open').waitFor();
    await said(page, 'post');

    await post(page, 'Bridge is open').hover();
    await post(page, 'Bridge is open').locator('.post-menu button[aria-label*="reply" i]').click();
    await write(page, '#reply_textbox', 'For trucks too');
    await page.locator('#rhsContainer .post-message__text', {hasText: 'For trucks too'}).waitFor();
    await said(page, 'reply in a thread');
    await page.locator('#rhsCloseButton').click();

    await write(page, '#post_textbox', '+:eyes:');
    await page.locator('.post-reaction-list .Reaction').first().waitFor();
    await said(page, 'react');

    await page.setInputFiles('#fileUploadInput', {name: 'sketch.png', mimeType: 'image/png', buffer: png});
    await page.locator('.file-preview__container .post-image__name, .file-preview__container .post-image__column').first().waitFor();
    await write(page, '#post_textbox', 'The sketch');
    await post(page, 'The sketch').locator('img, .post-image').first().waitFor();
    await said(page, 'upload an image');

    await api(bob.token, 'POST', '/posts', {channel_id: ops.id, message: `Convoy seen @wanda-${mark}`});
    await message(page, 'Convoy seen').waitFor();
    await said(page, "another user's message arrives live");

    await write(page, '#post_textbox', 'Turn lft');
    await message(page, 'Turn lft').waitFor();
    await page.press('#post_textbox', 'ArrowUp');
    await write(page, '#edit_textbox', 'Turn left');
    await message(page, 'Turn left').waitFor();
    await said(page, 'edit');

    await post(page, 'Turn left').hover();
    await post(page, 'Turn left').locator('.post-menu button[aria-label="more"]').click();
    await page.locator('li[id^="delete_post_"]').click();
    await page.click('#deletePostModalButton');
    await message(page, 'Turn left').waitFor({state: 'detached'});
    await said(page, 'delete');

    await page.click('#searchFormContainer');
    await page.locator('#searchBox input, input#searchBox, .search-box input, [data-testid="searchBoxInput"]').first().fill('bridge');
    await page.keyboard.press('Enter');
    await page.locator('#searchContainer .post-message__text', {hasText: 'Bridge is open'}).waitFor();
    await said(page, 'search');
}

await main();
