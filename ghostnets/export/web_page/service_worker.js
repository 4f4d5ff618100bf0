/** Caches all files of the page for offline use. files.js lists them and their version. */

importScripts("files.js");

const PREFIX = `ghostnets ${self.registration.scope} `; // separate from other pages of the same host
const CACHE = PREFIX + self.GHOSTNETS.version;

self.addEventListener("install", (event) => {
  const requests = self.GHOSTNETS.files.map((file) => new Request(file, { cache: "no-cache" }));
  event.waitUntil(
    caches
      .open(CACHE)
      .then((cache) => cache.addAll(requests))
      .then(() => self.skipWaiting()),
  );
});

self.addEventListener("activate", (event) => {
  const isOld = (name) => name.startsWith(PREFIX) && name !== CACHE;
  event.waitUntil(
    caches
      .keys()
      .then((names) => Promise.all(names.filter(isOld).map((name) => caches.delete(name))))
      .then(() => self.clients.claim()),
  );
});

self.addEventListener("fetch", (event) => {
  const { mode, url } = event.request;
  const key = mode === "navigate" ? "./" : url; // the page itself, whatever the URL of the folder is
  const cached = caches.open(CACHE).then((cache) => cache.match(key, { ignoreSearch: true }));
  event.respondWith(cached.then((response) => response ?? fetch(event.request)));
});
