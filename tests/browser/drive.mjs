// Drives one page of Chromium for the tests: a JSON command a line on standard input, a JSON answer a line on standard
// output. {"do": NAME, ...} is answered by {"value": ...} or {"error": "..."}.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const require = createRequire(import.meta.url);
const flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const PATIENCE = 180_000; // ms; a starved machine is slow, not wrong
let browser, context, page, heard = [], asked = [];

const commands = {
  async start({ executable }) {
    browser = await chromium.launch({ executablePath: executable, headless: true, args: flags, timeout: PATIENCE });
    return browser.version();
  },
  // A fresh page with nothing remembered; `options` are Playwright's: viewport, colorScheme, hasTouch, javaScriptEnabled …
  async open({ url, options }) {
    if (context) await context.close();
    context = await browser.newContext(options);
    context.setDefaultTimeout(PATIENCE);
    page = await context.newPage();
    heard = [];
    asked = [];
    page.on("console", (message) => heard.push(`${message.type()}: ${message.text()}`));
    page.on("pageerror", (error) => heard.push(`error: ${error.message}`));
    page.on("dialog", (dialog) => { heard.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
    context.on("request", (request) => asked.push(request.url().slice(0, 200)));
    await page.goto(url);
  },
  async heard() { return heard; },
  async requests() { return asked; },
  async evaluate({ code }) { return page.evaluate(code); },
  async visible({ selector }) { return page.locator(selector).first().isVisible(); }, // without scripts in the page, too
  // Playwright's own waiting evaluates strings in the page, which the page's policy forbids.
  async wait({ code }) {
    for (let left = PATIENCE / 50; !(await page.evaluate(code)); left -= 1) {
      if (left === 0) throw new Error(`still not so after minutes: ${code}`);
      await new Promise((resolve) => { setTimeout(resolve, 50); });
    }
  },
  async press({ key }) { await page.keyboard.press(key); },
  async focus({ selector }) { await page.focus(selector); },
  async click({ selector, position }) { await page.click(selector, position ? { position } : {}); },
  async wheel({ selector, down }) {
    await page.hover(selector);
    await page.mouse.wheel(0, down);
  },
  async hover({ selector, position }) { await page.hover(selector, { position }); },
  async drag({ selector, from, to, button = "left" }) { // positions within the element
    const box = await page.locator(selector).boundingBox();
    await page.mouse.move(box.x + from.x, box.y + from.y);
    await page.mouse.down({ button });
    for (let step = 1; step <= 4; step += 1) {
      await page.mouse.move(box.x + from.x + ((to.x - from.x) * step) / 4, box.y + from.y + ((to.y - from.y) * step) / 4);
    }
    await page.mouse.up({ button });
  },
  async swipe({ selector, across }) {
    const session = await context.newCDPSession(page);
    await page.locator(selector).scrollIntoViewIfNeeded();
    const box = await page.locator(selector).boundingBox();
    const y = box.y + box.height / 2, x = box.x + box.width / 2;
    const at = (px) => ({ touchPoints: [{ x: px, y }] });
    await session.send("Input.dispatchTouchEvent", { type: "touchStart", ...at(x) });
    for (let step = 1; step <= 8; step += 1) {
      await session.send("Input.dispatchTouchEvent", { type: "touchMove", ...at(x + (across * step) / 8) });
    }
    await session.send("Input.dispatchTouchEvent", { type: "touchEnd", touchPoints: [] });
  },
  async files({ selector, paths }) { await page.setInputFiles(selector, paths); },
  async set({ selector, value }) { await page.fill(selector, value); },
  async media({ media }) { await page.emulateMedia(media); },
  async screenshot({ path, full }) { await page.screenshot({ path, fullPage: Boolean(full) }); },
  async pdf({ path }) { await page.pdf({ path, preferCSSPageSize: true, printBackground: true }); },
  // The rules of WCAG 2.0 to 2.2, levels A and AA, and axe's best practices. Run through the browser's debugger, which
  // the page's own policy does not hold back.
  async axe() {
    const source = require.resolve("axe-core/axe.min.js");
    const { readFile } = await import("node:fs/promises");
    await page.evaluate(await readFile(source, "utf8"));
    const result = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
    return result.violations.map(({ id, impact, help, nodes }) => ({ id, impact, help, nodes: nodes.map((n) => n.html.slice(0, 200)) }));
  },
  async stop() { await browser?.close(); },
};

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  let answer;
  try {
    answer = { value: (await commands[command.do](command)) ?? null };
  } catch (error) {
    answer = { error: String(error?.message ?? error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
  if (command.do === "stop") break;
}
process.exit(0);
