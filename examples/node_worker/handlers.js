"use strict";
// What this worker can do: a function for each task type. It is given the payload and a context, and
// returns what becomes the task's result. An error is retried, unless it is a PermanentError.

class PermanentError extends Error {}

/** Counts the words of `payload.text`. */
async function documentProcessing(payload, context) {
  if (typeof payload.text !== "string") {
    throw new PermanentError("the payload has no text");
  }
  await context.progress(50, "counting");
  const words = payload.text.split(/\s+/).filter((word) => word !== "");
  return { words: words.length, language: "node", attempt: context.attempt };
}

module.exports = { PermanentError, handlers: { document_processing: documentProcessing } };
