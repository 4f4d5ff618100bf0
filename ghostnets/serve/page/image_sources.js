/** Image sources: drag and drop, clipboard, file dialog, camera. */

import { byId } from "./dom.js";

/**
 * @param {(images: File[]) => void} receive - called with each set of files, of any type; unreadable ones are reported
 *   by the classifier.
 */
export function watchImageSources(receive) {
  const [area, input, problem] = [byId("image-input"), byId("files"), byId("problem")];
  const receiveFiles = (files) => {
    problem.textContent = "";
    if (files.length) receive([...files]);
  };

  byId("choose").onclick = () => input.click();
  input.onchange = () => {
    receiveFiles(input.files);
    input.value = ""; // allows choosing the same file again
  };

  let depth = 0; // dragenter and dragleave also fire for nested elements
  const highlight = (change) => {
    depth = change && Math.max(0, depth + change);
    area.classList.toggle("dragover", depth > 0);
  };
  document.addEventListener("dragenter", () => highlight(1));
  document.addEventListener("dragleave", () => highlight(-1));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    highlight(0);
    receiveFiles(event.dataTransfer.files);
    if (!event.dataTransfer.files.length) problem.textContent = "The dropped item is not a file; save the image first.";
  });

  document.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) receiveFiles(event.clipboardData.files);
  });
  byId("paste").hidden = !navigator.clipboard?.read;
  byId("paste").onclick = () => readClipboard().then(receiveFiles, (error) => (problem.textContent = error.message));

  setUpCamera(receiveFiles);
}

/** Reads the images in the clipboard; the browser may ask for permission. */
async function readClipboard() {
  const items = await navigator.clipboard.read().catch(() => {
    throw new Error("The browser denies this page access to the clipboard; paste with the keyboard instead.");
  });
  const files = [];
  for (const item of items) {
    const type = item.types.find((name) => name.startsWith("image/"));
    if (type) files.push(new File([await item.getType(type)], "pasted image", { type }));
  }
  if (!files.length) throw new Error("The clipboard contains no image; copy one first.");
  return files;
}

function setUpCamera(receiveFiles) {
  const [open, panel, video] = [byId("open-camera"), byId("camera"), byId("video")];
  open.hidden = !navigator.mediaDevices?.getUserMedia; // only available on https and localhost
  let stream = null;
  let photos = 0;

  const close = () => {
    for (const track of stream?.getTracks() ?? []) track.stop();
    stream = video.srcObject = null;
    panel.hidden = true;
    open.setAttribute("aria-expanded", "false");
  };
  open.onclick = async () => {
    if (stream) return;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch (error) {
      byId("problem").textContent = `The camera cannot be used (${error.message}); allow access, or choose an image.`;
      return;
    }
    video.srcObject = stream;
    byId("take-photo").disabled = true; // until the first frame
    panel.hidden = false;
    open.setAttribute("aria-expanded", "true");
    await video.play();
    byId("take-photo").disabled = false;
    byId("take-photo").focus();
  };
  byId("close-camera").onclick = () => {
    close();
    open.focus();
  };
  byId("take-photo").onclick = () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => receiveFiles([new File([blob], `photo ${++photos}`, { type: blob.type })])); // lossless PNG
  };
}
