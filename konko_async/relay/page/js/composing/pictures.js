// Pictures as parts of a question: data: addresses, made smaller until they fit.

const KINDS = ["image/png", "image/jpeg", "image/webp", "image/gif"]; // that models' servers read
const SIDES = [1568, 1024, 768, 512, 320]; // px, of the longer side; models look at no more than the first
const QUALITIES = [0.85, 0.7];
const MOST_PIXELS = 100_000_000;
const LARGEST = 50 * 1024 * 1024; // bytes of a file that is read at all

export const isPicture = (file) => file.type.startsWith("image/");

const addressOf = (blob) => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.addEventListener("load", () => resolve(reader.result));
  reader.addEventListener("error", () => reject(new Error("it cannot be read")));
  reader.readAsDataURL(blob);
});

/** Bytes of the address of a picture of so many bytes. */
const encodedSize = (bytes) => Math.ceil(bytes / 3) * 4 + 32;

function drawn(bitmap, side) {
  const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "#ffffff"; // under what is transparent: JPEG has no such thing
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas;
}

const encoded = (canvas, quality) => new Promise((resolve) => { canvas.toBlob(resolve, "image/jpeg", quality); });

/**
 * Read a picture: {part, width, height, size, smaller}; its address has at most `most` bytes. What is
 * drawn anew has lost what a camera wrote into it: the place, for one. Throws an Error that says what is wrong.
 */
export async function readPicture(file, most) {
  if (file.size > LARGEST) throw new Error(`it has more than ${LARGEST / 1024 / 1024} MB`);
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error("this browser cannot read it as a picture");
  }
  try {
    const { width, height } = bitmap;
    if (width * height > MOST_PIXELS) throw new Error("it has too many pixels");
    // A photo is drawn anew in any case.
    const asItIs = KINDS.includes(file.type) && file.type !== "image/jpeg" && Math.max(width, height) <= SIDES[0];
    if (asItIs && encodedSize(file.size) <= most) return pictureOf(file, await addressOf(file), width, height, false);
    for (const side of SIDES) {
      const canvas = drawn(bitmap, side);
      for (const quality of QUALITIES) {
        const blob = await encoded(canvas, quality);
        if (!blob || encodedSize(blob.size) > most) continue;
        const smaller = canvas.width < width;
        return pictureOf(blob, await addressOf(blob), canvas.width, canvas.height, smaller);
      }
    }
  } finally {
    bitmap.close();
  }
  throw new Error("it does not fit, however small it is made");
}

function pictureOf(blob, url, width, height, smaller) {
  return { part: { type: "image_url", image_url: { url } }, width, height, size: blob.size, smaller };
}
