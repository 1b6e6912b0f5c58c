// Requests to the server of the page.

export class RequestError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status; // 0: nobody answered
  }
}

export const GONE = "The page's server does not answer. Is it still running?";

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new RequestError(GONE, 0);
  }
  const text = await answer.text();
  let body = {};
  try {
    body = text ? JSON.parse(text) : {};
  } catch {
    // Not from our server: the status says enough.
  }
  if (!answer.ok) {
    const said = body.error || `The server answered ${answer.status}.`;
    throw new RequestError(said, answer.status);
  }
  return body;
}

export function get(path, params = [], signal = undefined) {
  const query = new URLSearchParams(params).toString();
  return ask(query ? `${path}?${query}` : path, { signal });
}

export function remove(path) {
  return ask(path, { method: "DELETE" });
}

// Sends a file; `fetch` would not tell how far it is.
export function upload(file, onProgress) {
  const request = new XMLHttpRequest();
  const done = new Promise((resolve, reject) => {
    request.upload.onprogress = (event) => {
      if (event.lengthComputable) onProgress(event.loaded / event.total);
    };
    request.onload = () => {
      let body = {};
      try {
        body = JSON.parse(request.responseText);
      } catch {
        // As above.
      }
      if (request.status === 201) {
        resolve(body);
        return;
      }
      const said = body.error || `The server answered ${request.status}.`;
      reject(new RequestError(said, request.status));
    };
    request.onerror = () => reject(new RequestError(GONE, 0));
    request.onabort = () => reject(new RequestError("Cancelled.", -1));
  });
  const name = encodeURIComponent(file.name);
  request.open("POST", `/api/videos?name=${name}`);
  request.send(file);
  return { done, cancel: () => request.abort() };
}
