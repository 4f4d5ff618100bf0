/** Client of the HTTP service. */

import { byId } from "./dom.js";

const MAX_ATTEMPTS = 5; // while the service is at capacity

let token = ""; // kept in memory only, until the page is closed

/**
 * Sends a request; retries while the service is at capacity, and asks the user for the token if it is required.
 *
 * @param {string} url - relative to the page.
 * @param {RequestInit} options - options of fetch.
 * @returns the JSON of the response.
 * @throws {Error} with a message for the user; an AbortError if `options.signal` was aborted.
 */
export async function call(url, options = {}) {
  for (let attempt = 1; ; attempt++) {
    const response = await request(url, options);
    if (response.ok) return response.json();
    if (response.status === 401) {
      await askForToken();
    } else if (response.status === 429 && attempt < MAX_ATTEMPTS) {
      const seconds = Number(response.headers.get("Retry-After")) || 1;
      await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
    } else {
      throw new Error(await errorMessage(response));
    }
  }
}

/** As `call`, with a JSON body. */
export function post(url, value, signal) {
  const headers = { "Content-Type": "application/json" };
  return call(url, { method: "POST", headers, body: JSON.stringify(value), signal });
}

/** Reads a file as base64. */
export function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Error("The file cannot be read; it may be a folder, or have been removed."));
    reader.readAsDataURL(file);
  });
}

async function request(url, options) {
  const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
  try {
    return await fetch(url, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The service does not respond; check that it is running.", { cause: error });
  }
}

/** The service's error message, or the status if there is none. */
async function errorMessage(response) {
  const body = await response.json().catch(() => ({}));
  const message = body.error?.message ?? body.error ?? body.detail;
  return typeof message === "string" ? message : `The service returned ${response.status} ${response.statusText}.`;
}

let pendingToken = null;

/** Resolves when the user has entered a token; concurrent callers share one prompt. */
function askForToken() {
  pendingToken ??= new Promise((resolve) => {
    const [form, input] = [byId("token-form"), byId("token")];
    form.hidden = false;
    input.focus();
    form.onsubmit = (event) => {
      event.preventDefault();
      token = input.value;
      input.value = "";
      form.hidden = true;
      pendingToken = null;
      resolve();
    };
  });
  return pendingToken;
}
