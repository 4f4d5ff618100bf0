/** The HTTP service behind the page. */

import { byId } from "./dom.js";

const TRIES = 5; // while the service is full

let token = ""; // kept as long as the page is open, and nowhere else

/**
 * One request; waits and tries again while the service is full, and asks the person for the token where it wants one.
 *
 * @param {string} address - relative to the page.
 * @param {RequestInit} options - of fetch.
 * @returns the JSON of the answer.
 * @throws {Error} with a sentence for the person; an AbortError where `options.signal` said so.
 */
export async function call(address, options = {}) {
  for (let attempt = 1; ; attempt++) {
    const response = await request(address, options);
    if (response.ok) return response.json();
    if (response.status === 401) {
      await askForToken();
    } else if (response.status === 429 && attempt < TRIES) {
      const seconds = Number(response.headers.get("Retry-After")) || 1;
      await new Promise((done) => setTimeout(done, 1000 * seconds));
    } else {
      throw new Error(await sentence(response));
    }
  }
}

/** As `call`, with a JSON body. */
export function post(address, value, signal) {
  const headers = { "Content-Type": "application/json" };
  return call(address, { method: "POST", headers, body: JSON.stringify(value), signal });
}

/** The bytes of a file as base64. */
export function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Error("The file cannot be read; is it a folder, or gone?"));
    reader.readAsDataURL(file);
  });
}

async function request(address, options) {
  const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
  try {
    return await fetch(address, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The service does not answer; is it still running?", { cause: error });
  }
}

/** What the service says is wrong, or its status where it says nothing. */
async function sentence(response) {
  const body = await response.json().catch(() => ({}));
  const said = body.error?.message ?? body.error ?? body.detail;
  return typeof said === "string" ? said : `The service answered ${response.status} ${response.statusText}.`;
}

let asked = null;

/** Resolves when the person has given a token; those who wait meanwhile share the question. */
function askForToken() {
  asked ??= new Promise((resolve) => {
    const [form, input] = [byId("token-form"), byId("token")];
    form.hidden = false;
    input.focus();
    form.onsubmit = (event) => {
      event.preventDefault();
      token = input.value;
      input.value = "";
      form.hidden = true;
      asked = null;
      resolve();
    };
  });
  return asked;
}
