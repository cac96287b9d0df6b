// A person signs in on Entra's page in a browser, which goes back to where the sign-in was begun.
//
// tests/system/microsoft365.rs calls this with HOLDFAST_ADDRESS (what `holdfast m365 sign-in --browser` printed), HOLDFAST_USER and
// HOLDFAST_PASSWORD. HOLDFAST_NODE_MODULES holds playwright-core, HOLDFAST_CHROMIUM is the browser.

import {createRequire} from 'node:module';

const require = createRequire(`${process.env.HOLDFAST_NODE_MODULES}/node_modules/`);
const {chromium} = require('playwright-core');

const browser = await chromium.launch({executablePath: process.env.HOLDFAST_CHROMIUM, args: ['--no-sandbox']});
const page = await (await browser.newContext({ignoreHTTPSErrors: true})).newPage();
await page.goto(process.env.HOLDFAST_ADDRESS);
await page.fill('[name=login]', process.env.HOLDFAST_USER);
await page.fill('[name=passwd]', process.env.HOLDFAST_PASSWORD);
await page.click('button');
await page.waitForURL(/^http:\/\/localhost:/);
console.log(await page.textContent('body'));
await browser.close();
