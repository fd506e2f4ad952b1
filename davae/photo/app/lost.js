// Says in words that this page's process, or its server, is gone: else the page just stops answering.
const EVERY_MS = 4_000;

async function findLoss() {
  const settings = JSON.parse(document.getElementById("jupyter-config-data").textContent);
  try {
    const answer = await fetch(`${settings.baseUrl}api/kernels/${settings.kernelId}`, { cache: "no-store" });
    if (answer.status === 404) return "This page has ended: nobody used it for long, or its process failed. Load it again.";
  } catch {
    return "The app does not answer. Is its server still running? If it is started again, load this page again.";
  }
  return "";
}

setInterval(async () => {
  const said = await findLoss();
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
}, EVERY_MS);
