// Enhances the Failures pages. The pages also work without it: times are in UTC, and the user
// reloads a page to update it.
(function () {
  "use strict";

  function two(number) {
    return String(number).padStart(2, "0");
  }

  function day(date) {
    return date.getFullYear() + "-" + two(date.getMonth() + 1) + "-" + two(date.getDate());
  }

  function minute(date) {
    return two(date.getHours()) + ":" + two(date.getMinutes());
  }

  function second(date) {
    return minute(date) + ":" + two(date.getSeconds());
  }

  // Show times in the local zone. The UTC time is the tooltip.
  function localize(root) {
    root.querySelectorAll("time[datetime]").forEach(function (time) {
      var date = new Date(time.getAttribute("datetime"));
      if (isNaN(date)) return;
      if (!time.title) time.title = time.textContent;
      time.textContent = day(date) + " " + second(date);
    });
    root.querySelectorAll("text[data-time]").forEach(function (label) {
      var date = new Date(label.dataset.time);
      var dayText = date.toLocaleDateString(undefined, { day: "2-digit", month: "short" });
      if (label.dataset.kind === "day") label.textContent = dayText;
      else if (label.dataset.kind === "second") label.textContent = second(date);
      else label.textContent = (label.dataset.day === "1" ? dayText + " " : "") + minute(date);
    });
  }

  // Times in the form are shown in the local zone and sent in UTC.
  function localizeForm() {
    document.querySelectorAll("[data-zone]").forEach(function (zone) {
      zone.textContent = "(your time)";
    });
    var inputs = document.querySelectorAll("input[type=datetime-local]");
    inputs.forEach(function (input) {
      var date = input.value ? new Date(input.value + "Z") : null;
      if (date && !isNaN(date)) input.value = day(date) + "T" + second(date);
    });
    inputs.forEach(function (input) {
      input.form.addEventListener("formdata", function (event) {
        var date = input.value ? new Date(input.value) : null;
        if (date && !isNaN(date)) event.formData.set(input.name, date.toISOString());
        else event.formData.delete(input.name);
      });
    });
    document.querySelectorAll(".failures-filter").forEach(function (form) {
      form.addEventListener("formdata", function (event) {
        // Remove empty parameters from the URL.
        new Set(event.formData.keys()).forEach(function (name) {
          var values = event.formData.getAll(name).filter(Boolean);
          event.formData.delete(name);
          values.forEach(function (value) { event.formData.append(name, value); });
        });
      });
    });
  }

  function followSelection() {
    document.querySelectorAll("form[data-selection]").forEach(function (form) {
      var all = form.querySelector("[data-select-all]");
      var button = form.querySelector("[data-needs-selection]");
      var count = form.querySelector("[data-selection-count]");
      if (!all || !button) return;
      var boxes = Array.from(form.querySelectorAll("input[name=job_id]"));

      function update() {
        var selected = boxes.filter(function (box) { return box.checked; }).length;
        button.disabled = selected === 0;
        all.checked = selected === boxes.length;
        all.indeterminate = selected > 0 && selected < boxes.length;
        count.textContent = selected ? selected + " selected" : "";
      }

      all.addEventListener("change", function () {
        boxes.forEach(function (box) { box.checked = all.checked; });
        update();
      });
      boxes.forEach(function (box) { box.addEventListener("change", update); });
      form.addEventListener("submit", function (event) {
        var question = button.dataset.confirm;
        if (question && !window.confirm(question)) event.preventDefault();
      });
      update();
    });
  }

  var live = true;

  function isInUse(part) {
    return part.contains(document.activeElement) || part.querySelector("details[open]") !== null;
  }

  // The button that pauses updates of the page.
  function offerLiveSwitch() {
    document.querySelectorAll("[data-live-switch]").forEach(function (button) {
      button.hidden = false;
      button.addEventListener("click", function () {
        live = !live;
        button.textContent = live ? "Pause updates" : "Resume updates";
      });
    });
  }

  // Update a live part of the page until its state is final.
  function follow(id) {
    var part = document.getElementById(id);
    if (!part || !part.dataset.live) return;
    window.setTimeout(function () {
      // Do not replace a control that is in use.
      if (!live || document.hidden || isInUse(part)) return follow(id);
      fetch(window.location.href, { credentials: "same-origin" })
        .then(function (reply) {
          if (!reply.ok) throw new Error(reply.status);
          return reply.text();
        })
        .then(function (text) {
          var fresh = new DOMParser().parseFromString(text, "text/html").getElementById(id);
          if (!fresh) return;
          localize(fresh);
          part.replaceWith(document.adoptNode(fresh));
          announce(fresh);
          follow(id);
        })
        .catch(function () { follow(id); });
    }, Number(part.dataset.live));
  }

  var announced = "";

  // Announce a change of state to screen readers, but not every progress step.
  function announce(part) {
    var status = document.getElementById("failures-status");
    var text = part.dataset.status || "";
    if (status && text !== announced) status.textContent = text;
    announced = text;
  }

  localize(document);
  localizeForm();
  followSelection();
  offerLiveSwitch();
  ["job", "replay", "cancellation", "overview", "campaigns", "campaign"].forEach(function (id) {
    var part = document.getElementById(id);
    if (part) announced = part.dataset.status || "";
    follow(id);
  });
})();
