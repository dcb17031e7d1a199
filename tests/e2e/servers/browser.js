// browser.js CHROMIUM STEPS ARG...: opens pages with a browser that has no window.
"use strict";

const assert = require("node:assert");
const { chromium } = require("playwright-core");

const PATIENCE_MS = 20_000;

const STEPS = {
  // A page whose script talks to its own server; what it found is in its title.
  async socket(context, url) {
    const page = await context.newPage();
    await page.goto(url);
    await page.waitForFunction(() => document.title !== "", null, { timeout: PATIENCE_MS });
    return JSON.parse(await page.title());
  },

  // examples/websocket-chat, in two windows.
  async chat(context, url) {
    const [ann, ben] = [await context.newPage(), await context.newPage()];
    for (const page of [ann, ben]) {
      await page.goto(url);
      await page.locator("#state", { hasText: /^connected$/ }).waitFor();
    }
    await ann.fill("#name", "Ann");
    await ann.fill("#text", "<i>hello</i>");
    await ann.click("text=Send");
    await ben.locator("#lines li").waitFor();
    await ben.setInputFiles("#picture", {
      name: "dot.gif", mimeType: "image/gif",
      buffer: Buffer.from("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7", "base64"),
    });
    await ann.locator("#lines img").waitFor();
    const width = await ann.locator("#lines img").evaluate(image => image.naturalWidth);
    return { line: await ben.locator("#lines li").first().innerText(), width };
  },
};

async function main() {
  const [executablePath, steps, ...words] = process.argv.slice(2);
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  try {
    const context = await browser.newContext({ ignoreHTTPSErrors: true });
    context.setDefaultTimeout(PATIENCE_MS);
    assert(steps in STEPS);
    console.log(JSON.stringify(await STEPS[steps](context, ...words)));
  } finally {
    await browser.close();
  }
}

main();
