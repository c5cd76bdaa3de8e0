// Noise that a number, the seed, reproduces anywhere.
//
// Each value has an address (seed, stream, index). A hash makes a 32-bit whole number of it, and two of these make a
// normal value by Box and Muller's formula. Since no value depends on how many were drawn before, a longer noise
// begins like a shorter one of the same seed, and two models get the same noise.

// A 32-bit hash in which each bit of x changes about half of the result: multiply and shift, as in MurmurHash3.
function hash(x) {
  x ^= x >>> 16;
  x = Math.imul(x, 0x85ebca6b);
  x ^= x >>> 13;
  x = Math.imul(x, 0xc2b2ae35);
  x ^= x >>> 16;
  return x >>> 0;
}

// A number in (0, 1).
function uniform(seed, stream, index) {
  const mixed = hash(hash(hash(seed + 0x9e3779b9) + stream + 0x85ebca6b) + index + 0xc2b2ae35);
  return (mixed + 0.5) / 4294967296;
}

// `length` values ~ N(0, 1) of a stream.
export function gaussian(seed, stream, length) {
  const values = new Float32Array(length);
  for (let i = 0; i < length; i++) {
    const radius = Math.sqrt(-2 * Math.log(uniform(seed, stream, 2 * i)));
    values[i] = radius * Math.cos(2 * Math.PI * uniform(seed, stream, 2 * i + 1));
  }
  return values;
}

// The noise of a seed, moved by `offsets` along as many directions of the same seed, each ~ N(0, I) as well:
// z = (z_0 + sum_i a_i u_i) / sqrt(1 + sum_i a_i^2). The root keeps z ~ N(0, I) wherever it is moved, so the
// networks see what they were trained on.
export function movedNoise(seed, offsets, length) {
  const z = gaussian(seed, 0, length);
  let square = 1;
  offsets.forEach((a, i) => {
    if (!a) return;
    const direction = gaussian(seed, i + 1, length);
    for (let j = 0; j < length; j++) z[j] += a * direction[j];
    square += a * a;
  });
  const scale = 1 / Math.sqrt(square);
  return z.map((value) => value * scale);
}

// Part t of the way from a to b, both ~ N(0, I), and so is what lies between.
export function between(a, b, t) {
  const scale = 1 / Math.sqrt((1 - t) ** 2 + t ** 2);
  return a.map((value, i) => ((1 - t) * value + t * b[i]) * scale);
}
