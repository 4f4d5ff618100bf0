/** Where pictures come from: dropped, pasted, chosen, or taken by the camera. */

import { byId } from "./dom.js";

/**
 * @param {(pictures: File[]) => void} give - called with what came in, one File each, whatever their kind: who reads
 *   them says what is wrong with one.
 */
export function watchPictures(give) {
  const [area, input, problem] = [byId("intake"), byId("files"), byId("problem")];
  const receive = (files) => {
    problem.textContent = "";
    if (files.length) give([...files]);
  };

  byId("choose").onclick = () => input.click();
  input.onchange = () => {
    receive(input.files);
    input.value = ""; // the same file may be chosen again
  };

  let inside = 0; // dragenter comes for each element on the way
  const over = (change) => {
    inside = change && Math.max(0, inside + change);
    area.classList.toggle("over", inside > 0);
  };
  document.addEventListener("dragenter", () => over(1));
  document.addEventListener("dragleave", () => over(-1));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    over(0);
    receive(event.dataTransfer.files);
    if (!event.dataTransfer.files.length) problem.textContent = "What was dropped is no file; save the picture first.";
  });

  document.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) receive(event.clipboardData.files);
  });
  byId("paste").hidden = !navigator.clipboard?.read;
  byId("paste").onclick = () => pasted().then(receive, (error) => (problem.textContent = error.message));

  watchCamera(receive);
}

/** The pictures in the clipboard; asks for permission where the browser wants it. */
async function pasted() {
  const items = await navigator.clipboard.read().catch(() => {
    throw new Error("The browser does not let this page read the clipboard; paste with the keyboard instead.");
  });
  const files = [];
  for (const item of items) {
    const type = item.types.find((name) => name.startsWith("image/"));
    if (type) files.push(new File([await item.getType(type)], "pasted picture", { type }));
  }
  if (!files.length) throw new Error("There is no picture in the clipboard; copy one first.");
  return files;
}

function watchCamera(receive) {
  const [open, panel, video] = [byId("use-camera"), byId("camera"), byId("video")];
  open.hidden = !navigator.mediaDevices?.getUserMedia; // only https and localhost have it
  let stream = null;
  let taken = 0;

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
      byId("problem").textContent = `The camera cannot be used (${error.message}); allow it, or choose a picture.`;
      return;
    }
    video.srcObject = stream;
    byId("take").disabled = true; // until there is a first picture
    panel.hidden = false;
    open.setAttribute("aria-expanded", "true");
    await video.play();
    byId("take").disabled = false;
    byId("take").focus();
  };
  byId("close-camera").onclick = () => {
    close();
    open.focus();
  };
  byId("take").onclick = () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => receive([new File([blob], `camera ${++taken}`, { type: blob.type })])); // PNG: nothing lost
  };
}
