// Pictures as the network was trained on them: the same numbers as `export.preprocess` in Python.

// Weights of the pixels that each output pixel is made of: a triangle as wide as the scale, at least 1 pixel.
function taps(size, length) {
  const scale = size / length;
  const support = Math.max(scale, 1);
  return Array.from({ length }, (_, i) => {
    const center = (i + 0.5) * scale;
    const first = Math.max(Math.trunc(center - support + 0.5), 0);
    const last = Math.min(Math.trunc(center + support + 0.5), size);
    const weights = [];
    for (let x = first; x < last; x += 1) weights.push(Math.max(1 - Math.abs((x - center + 0.5) / support), 0));
    const sum = weights.reduce((total, weight) => total + weight, 0);
    return { first, weights: weights.map((weight) => weight / sum) };
  });
}

// Resizes a plane [height, width] of floats along its width; rows outside of `rows` are left out.
function resizeWidth(plane, height, width, newWidth) {
  if (newWidth === width) return plane;
  const columns = taps(width, newWidth);
  const resized = new Float32Array(height * newWidth);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < newWidth; x += 1) {
      const { first, weights } = columns[x];
      let sum = 0;
      for (let i = 0; i < weights.length; i += 1) sum += plane[y * width + first + i] * weights[i];
      resized[y * newWidth + x] = sum;
    }
  }
  return resized;
}

function transpose(plane, height, width) {
  const turned = new Float32Array(plane.length);
  for (let y = 0; y < height; y += 1) for (let x = 0; x < width; x += 1) turned[x * height + y] = plane[y * width + x];
  return turned;
}

function resize(plane, height, width, newHeight, newWidth) {
  const wide = resizeWidth(plane, height, width, newWidth);
  if (newHeight === height) return wide;
  const turned = resizeWidth(transpose(wide, height, newWidth), newWidth, height, newHeight);
  return transpose(turned, newWidth, newHeight);
}

// Blends a value of a transparent pixel onto the background, rounded as Pillow does.
function blend(value, behind, alpha) {
  const sum = (value * alpha + behind * (255 - alpha) + 128) * 128;
  return (((sum >> 8) + sum) >> 8) >> 7;
}

// Planes of gray or of red, green and blue, from 1 to 4 values per pixel: gray, gray and alpha, RGB, RGBA.
function planes({ width, height, data }, { in_channels: wanted, background }) {
  const pixels = width * height;
  const channels = data.length / pixels;
  if (![1, 2, 3, 4].includes(channels)) throw new Error(`${data.length} values for ${width}x${height} pixels; give 1 to 4 per pixel`);
  const given = Array.from({ length: wanted }, () => new Float32Array(pixels));
  const color = [0, 0, 0];
  for (let i = 0; i < pixels; i += 1) {
    const at = i * channels;
    const alpha = channels === 2 || channels === 4 ? data[at + channels - 1] : 255;
    for (let c = 0; c < 3; c += 1) {
      const value = data[at + (channels > 2 ? c : 0)];
      color[c] = alpha === 255 ? value : blend(value, background[c], alpha);
    }
    if (wanted === 3) for (let c = 0; c < 3; c += 1) given[c][i] = color[c];
    else if (color[0] === color[1] && color[1] === color[2]) given[0][i] = color[0];
    else given[0][i] = (color[0] * 19595 + color[1] * 38470 + color[2] * 7471 + 0x8000) >> 16;
  }
  return given;
}

function roundHalfToEven(value) {
  const rounded = Math.round(value);
  return Math.abs(value % 1) === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}

/**
 * Returns a model's input [1, channels, resolution, resolution]: the shorter side is scaled to the resolution, the center is
 * cropped, and values are normalized.
 *
 * @param {{width: number, height: number, data: ArrayLike<number>}} picture such as an ImageData
 * @param {{resolution: number, in_channels: number, mean: number[], std: number[], background: number[]}} spec `preprocess` of a level
 * @returns {Float32Array}
 */
export function preprocess(picture, spec) {
  const { resolution: side } = spec;
  const { width, height } = picture;
  const short = Math.min(width, height);
  const [newHeight, newWidth] = [height, width].map((length) => Math.trunc((side * length) / short));
  const [top, left] = [newHeight, newWidth].map((length) => roundHalfToEven((length - side) / 2));
  const input = new Float32Array(spec.in_channels * side * side);
  planes(picture, spec).forEach((plane, c) => {
    const resized = resize(plane, height, width, newHeight, newWidth);
    const [mean, std] = [Math.fround(spec.mean[c]), Math.fround(spec.std[c])];
    for (let y = 0; y < side; y += 1) {
      for (let x = 0; x < side; x += 1) {
        const value = Math.fround(resized[(top + y) * newWidth + left + x] / 255);
        input[(c * side + y) * side + x] = Math.fround(value - mean) / std;
      }
    }
  });
  return input;
}
