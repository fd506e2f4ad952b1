// Says in words that this page's process, or its server, is gone: else the page just stops answering.
(() => {
  const EVERY_MS = 4_000;
  const LEAVING_MS = 10_000; // for which a page that is being left, or loaded again, says nothing
  let silentUntil = 0;

  async function findLoss() {
    const config = document.getElementById("jupyter-config-data");
    if (!config) return ""; // the page is still being sent
    const settings = JSON.parse(config.textContent);
    const address = `${settings.baseUrl}api/kernels/${settings.kernelId}`;
    try {
      const answer = await fetch(address, { cache: "no-store", signal: AbortSignal.timeout(5 * EVERY_MS) });
      if (answer.status === 404) {
        clearInterval(asking); // it will not come back
        return "This page has ended: nobody used it for long, or its process failed. Load it again.";
      }
    } catch {
      return "The app does not answer. Is its server still running? If it is started again, load this page again.";
    }
    return "";
  }

  function show(said) {
    let box = document.querySelector(".davae-lost");
    if (!said) {
      box?.remove();
      return;
    }
    if (!box) {
      box = Object.assign(document.createElement("div"), { className: "davae-lost", role: "alert" });
      document.body.prepend(box);
    }
    if (box.textContent !== said) box.textContent = said; // else a screen reader reads it again and again
  }

  window.addEventListener("beforeunload", () => {
    silentUntil = Date.now() + LEAVING_MS;
  });
  const asking = setInterval(async () => {
    if (Date.now() < silentUntil) return;
    const said = await findLoss();
    if (Date.now() >= silentUntil) show(said);
  }, EVERY_MS);
})();
