// The page works without this script. It follows Airflow's colours, leaves the frame for links into Airflow,
// and logs in where Airflow keeps the session in the browser's storage.
"use strict";

const root = document.documentElement;

function airflow() {
  try {
    return window.parent !== window && window.parent.document ? window.parent : null;
  } catch {
    return null; // a frame of another origin
  }
}

function followColours() {
  const outer = airflow()?.document.documentElement;
  const apply = () => {
    const dark = outer ? outer.classList.contains("dark") : localStorage.getItem("theme") === "dark";
    const light = outer ? !dark : localStorage.getItem("theme") === "light";
    root.classList.toggle("dark", dark);
    root.classList.toggle("light", light);
  };
  apply();
  if (outer) new MutationObserver(apply).observe(outer, { attributes: true, attributeFilter: ["class"] });
}

// The frame may not change the address of the window; a click on a link of the window itself does.
function leaveFrame(event) {
  const link = event.target.closest?.("a[data-top]");
  const outer = airflow();
  if (!link || !outer || event.defaultPrevented || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const door = outer.document.createElement("a");
  door.href = link.href;
  outer.document.body.append(door);
  door.click();
  door.remove();
}

// Airflow 3.1 keeps the session in local storage, and a plain request has no part of it.
async function logIn() {
  const refused = document.querySelector('[data-status="Log in to Airflow"]');
  const token = refused && localStorage.getItem("token");
  if (!token) return;
  let bare = token;
  try {
    bare = JSON.parse(token);
  } catch {
    // stored as it is
  }
  const answer = await fetch(location.href, { headers: { Authorization: `Bearer ${bare}` } });
  if (answer.status === 401) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  document.title = page.title;
  document.body.replaceWith(document.adoptNode(page.body));
}

followColours();
document.addEventListener("click", leaveFrame);
logIn();
