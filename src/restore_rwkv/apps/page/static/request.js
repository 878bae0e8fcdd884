// One request, and its answer as JSON. What is refused comes as one line in an Error.

export async function request(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The page's server does not answer; start restore-rwkv open again.");
  }
  const text = await answer.text();
  let value = null;
  try {
    value = text ? JSON.parse(text) : null;
  } catch {
    value = null;
  }
  if (!answer.ok) throw new Error(value?.error || text.trim() || `The server answers ${answer.status}.`);
  return value;
}

export const get = (path) => request(path);
