/** Keeps every file of the page, so that it opens without a connection. files.js names them, and their version. */

importScripts("files.js");

const PREFIX = `ghostnets ${self.registration.scope} `; // another page of the same host keeps its own
const CACHE = PREFIX + self.GHOSTNETS.version;

self.addEventListener("install", (event) => {
  const fetched = self.GHOSTNETS.files.map((file) => new Request(file, { cache: "no-cache" }));
  event.waitUntil(
    caches
      .open(CACHE)
      .then((cache) => cache.addAll(fetched))
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
  const wanted = mode === "navigate" ? "./" : url; // the page, by whatever name the host gives it
  const kept = caches.open(CACHE).then((cache) => cache.match(wanted, { ignoreSearch: true }));
  event.respondWith(kept.then((response) => response ?? fetch(event.request)));
});
